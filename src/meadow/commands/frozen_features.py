"""Frozen features as a table for other tools, and the photos that are most like another one."""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow import params
from meadow.errors import MeadowError
from meadow.inference.onnx_session import open_session
from meadow.pipeline import atomic, manifest
from meadow.pipeline.image import PhotoError
from meadow.pipeline.manifest import Row
from meadow.reporting.neighbours import unit
from meadow.storage import dvc_git
from meadow.training import features
from meadow.training.weights import Weights

ROWS = 10_000  # of a row group


def export(file: Path) -> None:
    """Write the features of all train and val photos as a Parquet file; compute what is lacking.

    Columns: `photo` (SHA-256 of the file), `path`, `label`, `split`, `network` (SHA-256), `vector`
    (d float32 numbers), `committed` (the time of HEAD, from which on this holds). The test photos
    are evaluate's alone.

    Args:
        file: to be written.

    Raises:
        MeadowError: nothing is prepared.

    """
    import pyarrow as pa  # 0.3 s
    from pyarrow import parquet

    network, _, rows, vectors = _features()
    committed = datetime.fromisoformat(dvc_git.git("show", "-s", "--format=%cI", "HEAD"))
    with atomic.whole(file) as part:
        writer = None
        for start in range(0, len(rows), ROWS):
            some, array = rows[start : start + ROWS], vectors[start : start + ROWS]
            columns = {
                name: pa.array([getattr(row, field) for row in some])
                for name, field in (
                    ("photo", "sha256"), ("path", "path"), ("label", "label"), ("split", "split"),
                )
            }  # fmt: skip
            columns["network"] = pa.array([network] * len(some))
            ends = np.arange(len(some) + 1, dtype=np.int32) * np.int32(array.shape[1])
            columns["vector"] = pa.ListArray.from_arrays(ends, pa.array(array.ravel()))
            times = [committed] * len(some)
            columns["committed"] = pa.array(times, pa.timestamp("us", "UTC"))
            table = pa.table(columns)
            writer = writer or parquet.ParquetWriter(part, table.schema, compression="none")
            writer.write_table(table)
        if writer:
            writer.close()
    print(f"{file}: {len(rows)} photos, {vectors.shape[1]} numbers each, of network {network[:8]}.")


def similar(photo: Path, count: int) -> None:
    """Print the train and val photos whose features are nearest to those of a photo.

    Args:
        photo: any file that Meadow takes.
        count: how many.

    Raises:
        MeadowError: the file is no photo, or nothing is prepared.

    """
    _, file, rows, vectors = _features()
    try:
        pixels = manifest.load().preprocessing(photo.read_bytes())
    except (OSError, PhotoError) as error:
        raise MeadowError(f"{photo}: {error}") from None
    (vector,) = open_session(file).run(features.OUTPUTS[:1], {"pixels": pixels[None]})
    distance = np.maximum(1 - unit(vectors) @ unit(vector)[0], 0)
    for i in np.argsort(distance, kind="stable")[:count]:
        print(f"{distance[i]:.4f}  {rows[i].path}")


def _features() -> tuple[str, Path, list[Row], NDArray[np.float32]]:
    """Return the network's SHA-256, its file, the train and val photos, their features (n, d)."""
    p, ready = params.load(), manifest.load()
    weights = Weights.of(p.train.weights, p.train.arch)
    network, digest = features.backbone(p.train, weights, ready)
    gpu = features.by_gpu(p.train, weights, ready)
    parts = [ready.photos("train"), ready.photos("val")]
    vectors, _ = features.frozen(network, digest, parts, machines=p.runtime.machines, gpu=gpu)
    return digest, network, [row for part in parts for row in part.rows], vectors
