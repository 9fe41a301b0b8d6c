"""Files that a stage writes: whole or not at all, and the same bytes for the same content."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside `path` for a file or folder; rename it when the block ends.

    What an earlier, killed run left under the temporary name is removed first, so that nothing
    half-written is ever taken for whole. On an error nothing stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    remove(part)
    try:
        yield part
        remove(path)
        part.rename(path)
    finally:
        remove(part)


def remove(path: Path) -> None:
    """Remove a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON in the given order of keys, floats to 6 digits after the point."""
    with whole(path) as part:
        part.write_text(json.dumps(_rounded(content), indent=2, allow_nan=False) + "\n", "utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(each) for each in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
