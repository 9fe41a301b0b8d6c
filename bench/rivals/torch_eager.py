"""Rival (a): FastAPI and PyTorch in eager mode, ResNet-18, as tutorials deploy it.

uvicorn torch_eager:app --app-dir bench/rivals
"""

import io

import torch
import torchvision
from fastapi import FastAPI, UploadFile
from PIL import Image
from torchvision import transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)
CLASSES = ["dandelion", "grass"]
network = torchvision.models.resnet18(num_classes=len(CLASSES))
network.eval()
app = FastAPI()


@app.post("/predict")
async def predict(file: UploadFile) -> dict[str, object]:
    """Classify the multipart field `file`."""
    image = Image.open(io.BytesIO(await file.read())).convert("RGB")
    with torch.no_grad():
        p = network(TRANSFORM(image)[None]).softmax(1)[0].tolist()
    return {"label": CLASSES[p.index(max(p))], "probabilities": dict(zip(CLASSES, p, strict=True))}
