"""Rival: all layers of a network of timm, fine-tuned with PyTorch and timm's own augmentation.

AdamW, a rate that falls as a cosine, the last epoch. Run by `learners.py`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch.utils.data import DataLoader, Dataset

EPOCHS = 6

deal, weights, out = sys.argv[1:]
task = json.loads(Path(deal).read_text("utf-8"))
torch.manual_seed(0)
network = timm.create_model(
    task["arch"], pretrained=True, num_classes=len(task["classes"]),
    pretrained_cfg_overlay={"file": weights},
)  # fmt: skip
expected = resolve_data_config(model=network) | {"input_size": (3, task["size"], task["size"])}
augmented = create_transform(**expected, is_training=True, scale=(0.5, 1.0))
plain = create_transform(**expected)


class Photos(Dataset[tuple[torch.Tensor, int]]):
    """Photo files with the index of their class."""

    def __init__(self, files: list[str], targets: list[int]) -> None:
        self.files, self.targets = files, targets

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return augmented(Image.open(self.files[i]).convert("RGB")), self.targets[i]


photos = Photos(task["files"], [task["classes"].index(label) for label in task["labels"]])
batches = DataLoader(photos, batch_size=32, shuffle=True)
optimizer = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * len(batches))
network.train()
for _ in range(EPOCHS):
    for pixels, targets in batches:
        loss = torch.nn.functional.cross_entropy(network(pixels), targets)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
network.eval()
with torch.no_grad():
    rows = [network(plain(Image.open(f).convert("RGB"))[None]).softmax(1) for f in task["asked"]]
np.save(out, torch.cat(rows).numpy())
