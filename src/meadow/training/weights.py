"""Pretrained weights: where they come from, and what they contain; without importing PyTorch."""

import hashlib
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from meadow.errors import MeadowError
from meadow.pipeline import atomic

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = Path("models/pretrained")  # a dependency of train, so that content decides what reruns


@dataclass(frozen=True)
class Weights:
    """Weights that a network starts from.

    Attributes:
        source: `imagenet`, `none`, or the path of a state_dict in models/pretrained.
        content: what they contain, in a word: the key of all that is computed with them.

    """

    source: str
    content: str

    @classmethod
    def of(cls, source: str) -> "Weights":
        """Look up the value of train.weights.

        Raises:
            MeadowError: a path that does not exist, or that DVC does not see.

        """
        if source == "none":
            return cls(source, "none")
        if source == "imagenet":
            return cls(source, f"torchvision {version('torchvision')} DEFAULT")
        path = Path(source)
        if path.parent != FOLDER:
            raise MeadowError(
                f"train.weights: {source!r} is neither imagenet, nor none, nor a file in {FOLDER},"
                f" where DVC tracks its content. Run `meadow weights {source}`: it copies the file"
                " there and sets train.weights."
            )
        if not path.is_file():
            raise MeadowError(f"train.weights: there is no file {source}. Try `dvc pull {FOLDER}`.")
        return cls(source, hashlib.sha256(path.read_bytes()).hexdigest())

    @property
    def loaded(self) -> bool:
        """Whether there are weights to load."""
        return self.source != "none"

    @classmethod
    def take(cls, source: Path) -> Path:
        """Copy a state_dict into models/pretrained, under a name that tells its content.

        The name is torchvision's convention, `name-hash.pth`; the same content is never kept twice.

        Raises:
            MeadowError: no such file, or not a plain state_dict.

        """
        if not source.is_file():
            raise MeadowError(f"there is no file {source}.")
        data = source.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        cls(str(source), digest).read()
        if same := sorted(FOLDER.glob(f"*-{digest[:8]}.pth")):
            return same[0]
        name = re.sub(r"[^A-Za-z0-9_.]+", "_", source.stem)
        path = FOLDER / f"{name}-{digest[:8]}.pth"
        with atomic.whole(path) as part:
            part.write_bytes(data)
        return path

    def read(self) -> "dict[str, Tensor]":
        """Read the tensors of the file by name.

        PyTorch's restricted unpickler is used: it runs no code from the file.

        Raises:
            MeadowError: not a plain state_dict.

        """
        import torch  # here, so that an experiment on cached features starts without it

        try:
            tensors = torch.load(self.source, map_location="cpu", weights_only=True)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise MeadowError(
                f"train.weights: {self.source} is not a plain state_dict: {reason}"
            ) from None
        if not isinstance(tensors, dict) or not all(
            isinstance(name, str) and isinstance(tensor, torch.Tensor)
            for name, tensor in tensors.items()
        ):
            raise MeadowError(f"train.weights: {self.source} is not a state_dict: tensors by name.")
        return tensors
