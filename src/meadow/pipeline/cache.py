"""The folder for what can be computed again: frozen features, exported backbones, checkpoints."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAY = 24 * 60 * 60  # seconds


def folder(kind: str) -> Path:
    """Return the cache's folder for one kind of thing, made if need be.

    It lies outside the stages' outs and outside the repository, so that all experiments, their
    temporary workspaces and all clones share it. The environment variable MEADOW_CACHE moves it;
    removing it costs time only.
    """
    root = os.environ.get("MEADOW_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meadow")
    path = Path(root) / kind
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
