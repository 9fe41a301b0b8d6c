"""Taking a file of pretrained weights into the project."""

import hashlib
import re
from pathlib import Path

from meadow import params
from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.training import architectures, state_dict
from meadow.training.weights import FOLDER, Weights


def take(source: Path) -> Path:
    """Copy a file of weights into models/pretrained, under a name that tells its content.

    It is loaded first into the network of train.arch, as train will do. The name is torchvision's
    convention, `name-hash.pth`, or `name-hash.safetensors`; the same content is never kept twice.

    Raises:
        MeadowError: no such file, no tensors in it, or those of another network than train.arch.

    """
    if not source.is_file():
        raise MeadowError(f"there is no file {source}.")
    chosen, weights = params.load(), Weights(str(source), content="")
    architectures.build(chosen.train.arch, weights, classes=2, size=chosen.prepare.size, seed=0)
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    suffix = ".safetensors" if state_dict.is_safetensors(source) else ".pth"
    if same := sorted(FOLDER.glob(f"*-{digest}{suffix}")):
        return same[0]
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", source.stem)
    path = FOLDER / f"{name}-{digest}{suffix}"
    with atomic.whole(path) as part:
        part.write_bytes(data)
    return path
