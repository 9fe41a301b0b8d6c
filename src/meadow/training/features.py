"""Frozen features: what a backbone without its last layer makes of each photo, cached.

The key is the network and the photo's pixels, so that all experiments share them: another head,
another split or a new photo never computes an old one again.
"""

import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from meadow.errors import MeadowError
from meadow.inference.onnx_session import digest, open_session
from meadow.params import Train
from meadow.pipeline import cache, parallel
from meadow.pipeline.manifest import Photos, Prepared
from meadow.pipeline.parallel import Machines
from meadow.training import feature_table, onnx_graph, quantization
from meadow.training.probe import Examples
from meadow.training.weights import Weights

if TYPE_CHECKING:
    from meadow.training import torch_features

NETWORK = "backbone.onnx"
OUTPUTS = ("features", "texture")
_Photo = tuple[Photos, int]  # of a split, and its place there
_Outputs = list[NDArray[np.float32]]
# Neither imported, nor a dependency of the stage: what it fetches is what `_compute` would make.
FETCH = "from meadow.storage.shared_features import main; main()"
LOCAL = Path(".dvc/config.local")  # where a clone has the keys of its remote, or in one of these
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ROLE_ARN"}


def backbone(p: Train, weights: Weights, ready: Prepared) -> tuple[Path, str]:
    """Return the ONNX file of a frozen backbone, `pixels` to `features`, and its SHA-256.

    It is exported once; from then on it comes from the cache, and PyTorch is not even imported.
    Neither does it depend on the photos in int8: see `quantization.leaves`.

    Raises:
        MeadowError: see `architectures.build`.

    """
    start = weights.content if weights.loaded else f"seed {p.seed}"
    size = str(ready.preprocessing.size)
    key = [p.arch, start, size, *map(version, ("torch", "torchvision", "timm"))]
    key += [_code("architectures", "onnx_export", "onnx_graph")]
    file, content = _cached(key, partial(_export, p, weights, int(size)), f"{p.arch} as ONNX")
    if p.precision == "int8":
        key = ["int8", content, *map(version, ("onnxruntime", "pillow"))]
        key += [_code("quantization", "onnx_graph")]
        file, content = _cached(key, partial(_quantise, file, int(size)), f"{p.arch} in int8")
    return file, content


def _cached(key: Sequence[str], make: Callable[[Path], None], what: str) -> tuple[Path, str]:
    """Return a network that is made once, and its SHA-256; `what` names it on the terminal."""
    folder = cache.folder("backbones") / _sha256(" ".join(key).encode())
    if not folder.exists():
        print(f"making {what}, which is kept in the cache", file=sys.stderr)
        with cache.writing(folder) as part:
            part.mkdir()
            make(part / NETWORK)
    os.utime(folder)
    return folder / NETWORK, digest(folder / NETWORK)


def _export(p: Train, weights: Weights, size: int, file: Path) -> None:
    """Export in a process of its own, with which PyTorch ends: 1 GB, and 0.7 s to free it.

    Not a fork: that would stand still where PyTorch's threads run already.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(_export_here, p, weights, size, file).result()


def _export_here(p: Train, weights: Weights, size: int, file: Path) -> None:
    from meadow.training import architectures, onnx_export  # import PyTorch: 2 s

    network = architectures.build(p.arch, weights, classes=2, size=size, seed=p.seed)
    exported = onnx_export.exported(architectures.Features(network), size=size, outputs=OUTPUTS)
    onnx_graph.save(exported, file)


def _quantise(network: Path, size: int, file: Path) -> None:
    pixels = quantization.leaves(size)
    onnx_graph.save(quantization.int8(onnx.load(network), pixels), file)


def by_gpu(p: Train, weights: Weights, ready: Prepared) -> "torch_features.Backbone | None":
    """Return what computes the features of a frozen backbone, where ONNX Runtime does not.

    Raises:
        MeadowError: train.device asks for a GPU that is not there, or that cannot do it.

    """
    if p.device == "cpu" or (p.device == "auto" and p.precision == "int8"):
        return None
    if p.precision == "int8":
        raise MeadowError(
            f"train.device: {p.device} computes in floats, and a probe in int8 learns from what it"
            " is served in, on the CPU. Set train.precision: float32, or train.device: auto or cpu."
        )
    from meadow.training import torch_features  # imports PyTorch: 2 s
    from meadow.training.device import Device

    device = Device.of(p)
    size = ready.preprocessing.size
    return torch_features.Backbone(p, weights, size, device) if device.gpu else None


def examples(
    network: Path,
    digest: str,
    ready: Prepared,
    *,
    machines: Machines,
    gpu: "torch_features.Backbone | None" = None,
) -> tuple[Examples, NDArray[np.float32]]:
    """Return the train and val photos as examples for a head, and their texture; see `frozen`."""
    parts = [ready.photos("train"), ready.photos("val")]
    features, texture = frozen(network, digest, parts, machines=machines, gpu=gpu)
    examples = Examples(
        features=features,
        targets=np.concatenate([part.targets for part in parts]),
        groups=[row.group for part in parts for row in part.rows],
        classes=len(ready.classes),
    )
    return examples, texture


def computed(
    network: ModelProto, parts: Sequence[Photos], names: Sequence[str], *, machines: Machines
) -> list[NDArray[np.float32]]:
    """Return outputs of a network, each (n, ...), for the n photos of all parts; uncached."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_graph.save(network, Path(folder, NETWORK))
        run = partial(open_session(Path(folder, NETWORK)).outputs, names)
        outputs = list(_ordered(run, photos_of(parts), machines))
    return [np.concatenate(output) for output in zip(*outputs, strict=True)]


def frozen(
    network: Path,
    digest: str,
    parts: Sequence[Photos],
    *,
    machines: Machines,
    gpu: "torch_features.Backbone | None" = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the features of photos, computed where the cache lacks them.

    On a CPU each photo is a run of its own on one thread, so that neither the number of threads nor
    the company of other photos can change a bit of it.

    Args:
        network: an ONNX file that gives `features` and `texture`.
        digest: SHA-256 of the backbone that it has inside, the key of its features.
        parts: n photos in all.
        machines: what computes them.
        gpu: what does so in place of these; see `by_gpu`.

    Returns:
        The features of each photo, (n, d), and its texture, (n, t).

    Raises:
        MeadowError: the cache is damaged, its disk is full, or the GPU's memory ends.

    """
    photos = photos_of(parts)
    file = feature_table.path(digest, gpu.device.key if gpu else None)
    with feature_table.opened(file) as table:
        if (missing := _missing(table, photos)) and not gpu:
            _fetch(file)
            missing = _missing(table, photos)
        if missing:
            _compute(table, network, missing, machines, gpu)
            cache.evict()
        features, texture = feature_table.read(table, [_key(photo) for photo in photos])
    return features, texture


def _missing(table: sqlite3.Connection, photos: Sequence[_Photo]) -> list[_Photo]:
    known = feature_table.known(table)
    return [photo for photo in photos if _key(photo) not in known]


def _fetch(file: Path) -> None:
    """Get what colleagues have computed from the remote, where this clone has keys for it."""
    if LOCAL.exists() or KEYS & os.environ.keys():
        subprocess.run([sys.executable, "-c", FETCH, str(file)], check=False)


def _compute(
    table: sqlite3.Connection,
    network: Path,
    photos: Sequence[_Photo],
    machines: Machines,
    gpu: "torch_features.Backbone | None",
) -> None:
    """Compute photos, and write each into the table."""
    rows = (
        gpu.outputs(photos)
        if gpu
        else _ordered(partial(open_session(network).outputs, OUTPUTS), photos, machines)
    )
    for photo, row in zip(photos, rows, strict=True):
        # Committed one by one: a kill loses at most the photos in flight.
        with table:
            feature_table.add(table, _key(photo), *(output.tobytes() for output in row))


def _ordered(
    run: Callable[[NDArray[np.uint8]], _Outputs], photos: Sequence[_Photo], machines: Machines
) -> Iterator[_Outputs]:
    """Run a network on each photo. The pixels travel: other machines need none of the packs."""
    pixels = map(_pixels, photos)
    return parallel.ordered(run, pixels, machines, title="features", total=len(photos))


def photos_of(parts: Sequence[Photos]) -> list[_Photo]:
    """Return each photo of all parts, in order."""
    return [(part, i) for part in parts for i in range(len(part.rows))]


def _key(photo: _Photo) -> str:
    part, i = photo
    return part.rows[i].pixels_sha256


def _pixels(photo: _Photo) -> NDArray[np.uint8]:
    part, i = photo
    return part.pixels[i : i + 1]


def _code(*modules: str) -> str:
    code = [Path(__file__).with_name(f"{module}.py").read_bytes() for module in modules]
    return _sha256(b"".join(code))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
