"""Files that a stage writes: whole or not at all, and the same bytes for the same content."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import lexists
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` for a file or folder; put it in place at the end.

    Whenever the process is killed, `path` or, of a folder, the one name beside it that `beside`
    gives is the whole old or new version, and the next call goes on from it. On an error the old
    version stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = beside(path)
    _recover(path)
    try:
        yield part
        if lexists(path) and (_is_folder(path) or _is_folder(part)):
            path.rename(old)  # a folder is not replaced in one step
        part.replace(path)
    finally:
        _recover(path)


def beside(path: Path) -> tuple[Path, Path]:
    """Return where `whole` writes, and where it lays an old folder aside for a moment."""
    return path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.old.part")


def _recover(path: Path) -> None:
    """Remove what is not whole; an old folder that has no successor comes back."""
    part, old = beside(path)
    remove(part)
    if lexists(old):
        # Under the name `part` a folder that is half removed is never taken for whole.
        old.rename(part if lexists(path) else path)
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in the given order of keys, floats to 6 digits after the point."""
    with whole(path) as part:
        part.write_text(json.dumps(_rounded(content), indent=2, allow_nan=False) + "\n", "utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
