"""Rival (b): FastAPI and ONNX Runtime with Meadow's own network, done as a good engineer would.

Decode and network run in FastAPI's thread pool, one thread a photo, without spinning; uvicorn has
uvloop and httptools. The photo is decoded in full, as everybody does.

    uvicorn onnx_runtime:app --app-dir bench/rivals --workers N
"""

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from fastapi import FastAPI, File, HTTPException
from PIL import Image, UnidentifiedImageError

FOLDER = Path("models/classifier")
about = json.loads((FOLDER / "model.json").read_text("utf-8"))
side = about["preprocessing"]["size"]
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = ort.InferenceSession(str(FOLDER / "model.onnx"), options, ["CPUExecutionProvider"])
app = FastAPI()


@app.post("/predict")
def predict(file: bytes = File()) -> dict[str, object]:
    """Classify the multipart field `file`."""
    try:
        image = Image.open(io.BytesIO(file)).convert("RGB")
    except (UnidentifiedImageError, OSError):
        raise HTTPException(422, "not a photo") from None
    pixels = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))[None]
    (found,) = session.run(["probabilities"], {"pixels": pixels})
    p = found[0].tolist()
    return {
        "label": about["classes"][p.index(max(p))],
        "probabilities": dict(zip(about["classes"], p, strict=True)),
    }
