"""Files of pretrained weights: reading the tensors in them safely."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from meadow.errors import MeadowError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # what checkpoints keep the tensors under
# What DataParallel, torch.compile and Lightning put before the names of tensors.
PREFIXES = re.compile(r"^((module|_orig_mod|model)\.)+")


def is_safetensors(path: Path) -> bool:
    """Tell by content: after the length of its header, 8 bytes, comes JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file of PyTorch or safetensors by name.

    They may lie in a checkpoint, and their names have prefixes of wrapped networks. PyTorch's
    restricted unpickler is used: it runs no code from the file.

    Raises:
        MeadowError: there are no such tensors, or they have values that are not finite.

    """
    try:
        if is_safetensors(path):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception:  # of any kind; its words may be PyTorch's advice to run the code in the file
        raise MeadowError(f"{path} {_fault(path)}") from None
    while isinstance(content, dict) and (
        inner := next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)
    ):
        content = content[inner]
    if not isinstance(content, dict) or not content:
        raise MeadowError(f"{path} holds no tensors by name. {_SAVE}")
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise MeadowError(f"{path} holds {name!r}, which is not a tensor. {_SAVE}")
        if not tensor.isfinite().all():
            raise MeadowError(f"{path} has values that are not finite in {name!r}. Take another.")
    return {PREFIXES.sub("", name): tensor for name, tensor in content.items()}


_SAVE = "Write one by `torch.save(model.state_dict(), FILE)`, or with safetensors."


def _fault(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start == b"version ":
        return "is a pointer of Git LFS, not the file itself. Run `git lfs pull`."
    if start[:2] == b"PK":
        return f"holds more than tensors, such as a whole model, or is damaged. {_SAVE}"
    return f"is no file of PyTorch or safetensors, or is damaged. {_SAVE}"
