"""Taking a file of pretrained weights into the project."""

import hashlib
import re
from pathlib import Path

from torchvision import models
from torchvision.models import get_model_weights, list_models

from meadow import params
from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.training import architectures, state_dict
from meadow.training.weights import FOLDER, Weights

SIZE = 224  # that published weights are of, pixels: those of some networks fit no other
LAST_LAYER = 6_000_000  # weights in the last layer at most, which a file may lack


def take(source: Path) -> tuple[Path, str]:
    """Copy a file of weights into models/pretrained, under a name that tells its content.

    It is loaded first, as train will do. The name is torchvision's convention, `name-hash.pth`, or
    `name-hash.safetensors`; the same content is never kept twice.

    Returns:
        The copy, and the architecture that it is of: train.arch, if it fits that.

    Raises:
        MeadowError: no such file, no tensors in it, or those of no network that Meadow knows.

    """
    if not source.is_file():
        raise MeadowError(f"there is no file {source}.")
    arch = _architecture(source)
    data = source.read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    suffix = ".safetensors" if state_dict.is_safetensors(source) else ".pth"
    if same := sorted(FOLDER.glob(f"*-{digest}{suffix}")):
        return same[0], arch
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", source.stem)
    path = FOLDER / f"{name}-{digest}{suffix}"
    with atomic.whole(path) as part:
        part.write_bytes(data)
    return path, arch


def _architecture(source: Path) -> str:
    """Return the first architecture that the tensors fit: train.arch, else by number of weights."""
    tensors = state_dict.read(source)
    numbers = sum(tensor.numel() for name, tensor in tensors.items() if "running_" not in name)
    excess: dict[str, int] = {
        arch: abs(next(iter(get_model_weights(arch))).meta["num_params"] - numbers)
        for arch in list_models(module=models)
    }
    near = sorted((arch for arch in excess if excess[arch] <= LAST_LAYER), key=excess.__getitem__)
    problems = []
    for arch in (params.load().train.arch, *near):
        try:
            weights = Weights(str(source), content="", file=source)
            architectures.build(arch, weights, classes=2, size=SIZE, seed=0)
        except MeadowError as error:
            problems.append(error)
        else:
            return arch
    raise MeadowError(
        f"{source} fits neither train.arch nor a network of torchvision. If it is of one of timm's,"
        f" set train.arch to that, then run this again.\n{problems[0]}"
    )
