"""Files of pretrained weights: reading them safely, and taking them into the project."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.training.weights import FOLDER


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a file by name.

    PyTorch's restricted unpickler is used: it runs no code from the file.

    Raises:
        MeadowError: not a plain state_dict.

    """
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise MeadowError(f"train.weights: {path} is not a plain state_dict: {reason}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise MeadowError(f"train.weights: {path} is not a state_dict: tensors by name.")
    return tensors


def take(source: Path) -> Path:
    """Copy a state_dict into models/pretrained, under a name that tells its content.

    The name is torchvision's convention, `name-hash.pth`; the same content is never kept twice.

    Raises:
        MeadowError: no such file, or not a plain state_dict.

    """
    if not source.is_file():
        raise MeadowError(f"there is no file {source}.")
    read(source)
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    if same := sorted(FOLDER.glob(f"*-{digest}.pth")):
        return same[0]
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", source.stem)
    path = FOLDER / f"{name}-{digest}.pth"
    with atomic.whole(path) as part:
        part.write_bytes(data)
    return path
