"""Frozen features on the remote, so that no two machines compute the same.

Below `features/NETWORK/` lie shards: Parquet files whose names are the SHA-256 of their content.
None is ever changed. A reader takes a shard whole or not at all, into its own table, and writers
need not know of each other: a photo that is in two shards has the same features in both.
"""

import hashlib
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from meadow.errors import MeadowError
from meadow.pipeline import manifest
from meadow.storage.s3_remote import Remote
from meadow.training import feature_table

FOLDER = "features"
ROWS = 5000  # photos of a shard: some 40 MB


def main() -> None:
    """Fetch what the remote has for the table that is named on the command line.

    Train runs this; where the remote gives nothing, train computes.
    """
    try:
        with feature_table.opened(Path(sys.argv[1])) as table:
            count, damaged = fetch(Remote.load(), Path(sys.argv[1]).stem, table)
        if count:
            print(f"the features of {count} photos came from the remote", file=sys.stderr)
        for name in damaged:
            print(f"{name} on the remote is damaged: `make share` mends it", file=sys.stderr)
    except MeadowError as error:
        print(f"no features come from the remote: {error}", file=sys.stderr)


def fetch(store: Remote, network: str, table: sqlite3.Connection) -> tuple[int, list[str]]:
    """Take the shards of a network into its table, those that it has not yet.

    Args:
        store: the remote.
        network: the table's name.
        table: of features.

    Returns:
        How many photos it had not yet, and the shards that are damaged, of which nothing is taken.

    Raises:
        MeadowError: the remote does not answer.

    """
    there = {PurePosixPath(name).stem: name for name in store.sizes(f"{FOLDER}/{network}/")}
    taken = {shard for (shard,) in table.execute("SELECT DISTINCT shard FROM shared")}
    with table:
        for shard in taken - there.keys():  # somebody has removed it
            table.execute("DELETE FROM shared WHERE shard = ?", (shard,))
    damaged = []
    before = len(feature_table.known(table))
    for shard in sorted(there.keys() - taken):
        content = b"".join(store.pieces(there[shard]))
        if hashlib.sha256(content).hexdigest() != shard:
            damaged.append(there[shard])
            continue
        with table:
            for key, features, texture in _rows(content):
                feature_table.add(table, key, features, texture)
                table.execute("INSERT INTO shared VALUES (?, ?)", (shard, key))
    return len(feature_table.known(table)) - before, damaged


def push(store: Remote) -> None:
    """Share the features of train and val photos: of each network that knows all train photos.

    Raises:
        MeadowError: the remote does not answer, or a table is damaged.

    """
    try:
        rows = manifest.load().rows
    except MeadowError:  # nothing is prepared yet
        return
    for file in feature_table.paths():
        with feature_table.opened(file) as table:
            known = feature_table.known(table)
            if {row.pixels_sha256 for row in rows if row.split == "train"} <= known:
                keys = {row.pixels_sha256 for row in rows if row.split != "test"} & known
                if count := _push(store, file.stem, table, keys):
                    print(f"The features of {count} photos pushed.")


def _push(store: Remote, network: str, table: sqlite3.Connection, keys: set[str]) -> int:
    _, damaged = fetch(store, network, table)
    store.forget(damaged)
    new = sorted(keys - {key for (key,) in table.execute("SELECT pixels FROM shared")})
    for start in range(0, len(new), ROWS):
        part = new[start : start + ROWS]
        content = _shard(part, table)
        shard = hashlib.sha256(content).hexdigest()
        store.put(f"{FOLDER}/{network}/{shard}.parquet", content)
        with table:
            table.executemany("INSERT INTO shared VALUES (?, ?)", [(shard, key) for key in part])
    return len(new)


def _shard(keys: Sequence[str], table: sqlite3.Connection) -> bytes:
    """Return a Parquet file with features and texture of these photos."""
    columns = {"pixels": pa.array(keys)}
    for name, array in zip(("features", "texture"), feature_table.read(table, keys), strict=True):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, compression="none")
    return bytes(sink.getvalue())


def _rows(content: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    table = parquet.read_table(pa.BufferReader(content))
    keys = table["pixels"].to_pylist()
    arrays = [
        np.concatenate([chunk.flatten().to_numpy() for chunk in table[name].chunks]).reshape(
            len(keys), -1
        )
        for name in ("features", "texture")
    ]
    for key, *vectors in zip(keys, *arrays, strict=True):
        features, texture = (vector.tobytes() for vector in vectors)
        yield key, features, texture
