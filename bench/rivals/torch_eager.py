"""Rival (a): FastAPI and PyTorch in eager mode with Meadow's own network, as tutorials deploy it.

The recipe `probe` has a network of timm. Its weights here are random, which takes the same time,
and float32, as they come.

    uvicorn torch_eager:app --app-dir bench/rivals --workers N
"""

import io
import json
from pathlib import Path

import timm
import torch
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

about = json.loads(Path("models/classifier/model.json").read_text("utf-8"))
side = about["preprocessing"]["size"]
TRANSFORM = transforms.Compose(
    [
        transforms.Resize((side, side)),
        transforms.ToTensor(),
        transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ]
)
CLASSES = about["classes"]
network = timm.create_model(about["arch"].removeprefix("timm/"), num_classes=len(CLASSES))
network.eval()
app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, object]:
    """Classify the multipart field `file`."""
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    with torch.no_grad():
        p = network(TRANSFORM(image)[None]).softmax(1)[0].tolist()
    return {"label": CLASSES[p.index(max(p))], "probabilities": dict(zip(CLASSES, p, strict=True))}
