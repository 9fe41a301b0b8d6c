"""The folder for what can be computed again: frozen features, exported backbones, checkpoints.

What was computed has a limit of bytes: where it is passed, what was not used for the longest time
goes.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from meadow.errors import MeadowError
from meadow.pipeline import atomic

DAY = 24 * 60 * 60  # seconds
COMPUTED = ("backbones", "checkpoints", "features")  # other kinds stay, as photos that were fetched
GB = 10**9


def root() -> Path:
    """Return the folder of all kinds, which may not be there yet; see `folder`."""
    if moved := os.environ.get("MEADOW_CACHE"):
        return Path(moved)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meadow"


def folder(kind: str) -> Path:
    """Return the cache's folder for one kind of thing, made if need be.

    It lies outside the stages' outs and outside the repository, so that all experiments, their
    temporary workspaces and all clones share it. The environment variable MEADOW_CACHE moves it;
    removing it costs time only.
    """
    path = root() / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a name for a new file or folder, which becomes `path` when the block ends.

    Equal experiments may write the same thing at the same time: each has a name of its own, and a
    file replaces the other's, while of two folders the first stays. On an error nothing stays.
    """
    for left in path.parent.glob(".part-*"):  # by a run that was killed
        if time.time() - left.stat().st_mtime > DAY:
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder, path.name)
        yield part
        if not path.is_dir():
            try:
                part.replace(path)
            except OSError:
                if not path.is_dir():
                    raise
    evict()


def limit() -> int:
    """Return the bytes that what was computed may take, of MEADOW_CACHE_LIMIT.

    Raises:
        MeadowError: that is no number of gigabytes.

    """
    text = os.environ.get("MEADOW_CACHE_LIMIT", "20")
    try:
        return int(GB * float(text))
    except (ValueError, OverflowError):  # NaN, infinity
        raise MeadowError(
            f"MEADOW_CACHE_LIMIT={text}: a number of gigabytes is allowed, such as 20."
        ) from None


def sizes() -> dict[str, int]:
    """Return the bytes of each kind of thing in the cache."""
    return {kind.name: _size(kind) for kind in sorted(root().glob("*")) if kind.is_dir()}


def evict() -> None:
    """Remove what was not used for the longest time, until the rest is within the limit.

    What was used within a day stays: a run may need it still. Whoever reads an entry marks it with
    `os.utime`.
    """
    entries: dict[Path, list[Path]] = {}  # SQLite has files beside its own while it works
    for kind in COMPUTED:
        for file in (root() / kind).glob("[!.]*"):
            entry = file.with_name(file.name.removesuffix("-wal").removesuffix("-shm"))
            entries.setdefault(entry, []).append(file)
    with suppress(FileNotFoundError):  # another process has evicted it: it looks after the rest
        used = {entry: max(f.stat().st_mtime for f in files) for entry, files in entries.items()}
        size = {entry: sum(map(_size, files)) for entry, files in entries.items()}
        excess = sum(size.values()) - limit()
        for entry in sorted(entries, key=used.__getitem__):
            if excess <= 0 or time.time() - used[entry] < DAY:
                break
            for file in entries[entry]:
                atomic.remove(file)
            excess -= size[entry]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
