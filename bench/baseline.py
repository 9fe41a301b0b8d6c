"""The recipe that Meadow is measured against: what people write first.

ResNet-18 of torchvision from random weights, 3 epochs, photos of 224 px in batches of 32, Adam at
1e-3, each photo decoded again in each epoch. 320 photos to train on, 80 to test.

    python bench/baseline.py data/raw
"""

import random
import sys
import time
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


class Folder(Dataset[tuple[torch.Tensor, int]]):
    """Photos decoded when they are asked for."""

    def __init__(self, files: list[Path], classes: list[str]) -> None:
        self.files, self.classes = files, classes

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        path = self.files[i]
        photo = TRANSFORM(Image.open(path).convert("RGB"))
        return photo, self.classes.index(path.parent.name)


def main() -> None:
    """Train, test, and say how long it took."""
    torch.manual_seed(0)
    files = sorted(Path(sys.argv[1]).glob("*/*.jpg"))
    classes = sorted({file.parent.name for file in files})
    random.Random(0).shuffle(files)
    train, test = Folder(files[80:], classes), Folder(files[:80], classes)
    network = torchvision.models.resnet18(num_classes=len(classes))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    started = time.perf_counter()
    for _ in range(3):
        network.train()
        for photos, targets in DataLoader(train, 32, shuffle=True):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(photos), targets)
            loss.backward()  # type: ignore[no-untyped-call]  # of PyTorch
            optimizer.step()
    seconds = time.perf_counter() - started
    network.eval()
    with torch.no_grad():
        right = sum(
            int((network(photos).argmax(1) == targets).sum())
            for photos, targets in DataLoader(test, 32)
        )
    print(f"trained in {seconds:.1f} s; {right} of {len(test)} test photos right")


if __name__ == "__main__":
    main()
