"""Which weights a network starts from, and what they contain; without importing PyTorch."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from meadow.errors import MeadowError

FOLDER = Path("models/pretrained")  # a dependency of train, so that content decides what reruns
BY_NAME = ("imagenet", "none")  # values of train.weights that are no path


@dataclass(frozen=True)
class Weights:
    """Weights that a network starts from.

    Attributes:
        source: `imagenet`, `none`, or the path of a file; of train, in models/pretrained.
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
