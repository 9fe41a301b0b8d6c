"""Where frozen features are kept on a machine: an SQLite file for each network.

The key is the network and the photo's pixels, so that all experiments share them. The file also
says which of its photos are in which shard on the remote; see `storage/shared_features.py`.
"""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from meadow.errors import MeadowError
from meadow.pipeline import cache
from meadow.training import scratch

FORMAT = "3"  # of a row: another one where `features.py` makes other bytes


def path(digest: str, gpu: str | None = None) -> Path:
    """Return the file of the network with this SHA-256, as this ONNX Runtime computes it.

    Or as a GPU does, with the `Device.key` of which it is called: features of two are never mixed.
    """
    name = f"-{gpu}-{FORMAT}.sqlite" if gpu else _suffix()
    return cache.folder("features") / f"{digest}{name}"


def paths() -> list[Path]:
    """Return the files of all networks that this ONNX Runtime has computed with on the CPU."""
    return sorted(cache.folder("features").glob(f"*{_suffix()}"))


def _suffix() -> str:
    return f"-{version('onnxruntime')}-{FORMAT}.sqlite"


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """Open a file, made if need be.

    Raises:
        MeadowError: it is damaged, or its disk is full.

    """
    try:
        with closing(sqlite3.connect(file, timeout=60)) as table:
            table.execute("PRAGMA journal_mode = WAL")
            table.execute("PRAGMA synchronous = NORMAL")
            table.execute(
                "CREATE TABLE IF NOT EXISTS features"
                " (pixels PRIMARY KEY, features BLOB, texture BLOB)"
            )
            table.execute("CREATE TABLE IF NOT EXISTS shared (shard, pixels)")
            os.utime(file)
            yield table
    except sqlite3.DatabaseError as error:
        raise MeadowError(
            f"the cache {file} cannot be used: {error}. If the disk is full, make room; else remove"
            " the file: what is in it can be computed again."
        ) from None


def known(table: sqlite3.Connection) -> set[str]:
    """Return the keys of all photos in it."""
    return {key for (key,) in table.execute("SELECT pixels FROM features")}


def add(table: sqlite3.Connection, key: str, features: bytes, texture: bytes) -> None:
    """Add a photo; one that is there stays."""
    table.execute("INSERT OR IGNORE INTO features VALUES (?, ?, ?)", (key, features, texture))


def read(table: sqlite3.Connection, keys: Sequence[str]) -> list[NDArray[np.float32]]:
    """Read features and texture of photos, each (n, ...), without a second copy of them all.

    Large ones lie on disk: see `scratch`.

    Raises:
        KeyError: a photo is not there.

    """
    arrays: list[NDArray[np.float32]] = []
    place = dict(table.execute("SELECT pixels, rowid FROM features"))
    order = sorted(range(len(keys)), key=lambda i: place[keys[i]])  # as they lie in the file
    query = "SELECT features, texture FROM features WHERE rowid = ?"
    for i in tqdm(order, desc="reading features", delay=2, disable=None):
        blobs = table.execute(query, (place[keys[i]],)).fetchone()
        row = [np.frombuffer(blob, np.float32) for blob in blobs]
        arrays = arrays or [scratch.empty((len(keys), len(vector))) for vector in row]
        for array, vector in zip(arrays, row, strict=True):
            array[i] = vector
    return arrays
