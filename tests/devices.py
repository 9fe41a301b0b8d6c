"""The devices that are there, in each format: tests of what PyTorch computes run on all of them."""

import pytest
import torch

from meadow.training.device import GPUS, Device

DEVICES = [
    Device(kind, dtype)
    for kind in ("cpu", *GPUS)
    if getattr(torch, kind).is_available()
    for dtype in (torch.float32, torch.bfloat16)
]
ON_DEVICES = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.key)
