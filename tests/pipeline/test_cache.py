import os
import time
from pathlib import Path

import pytest

from meadow.errors import MeadowError
from meadow.pipeline import cache

pytestmark = pytest.mark.usefixtures("project")


def keep(kind: str, name: str, days: float, size: int = 400_000) -> Path:
    """Put a file that was last used so many days ago into the cache."""
    file = cache.folder(kind) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))
    then = time.time() - days * cache.DAY
    for path in (file, file.parent) if "/" in name else (file,):
        os.utime(path, (then, then))
    return file


def kept() -> set[str]:
    return {path.name for path in cache.root().rglob("*") if path.is_file()}


def test_what_was_not_used_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all kinds together, whole folders too, until the rest is within the limit."""
    keep("features", "a.sqlite", days=9)
    keep("backbones", "0123/b.onnx", days=8)
    keep("checkpoints", "c.pt", days=7)
    keep("features", "d.sqlite", days=6)
    monkeypatch.setenv("MEADOW_CACHE_LIMIT", "0.001")
    with cache.writing(cache.folder("checkpoints") / "e.pt") as part:
        part.write_bytes(bytes(100_000))

    assert kept() == {"c.pt", "d.sqlite", "e.pt"}
    assert not (cache.folder("backbones") / "0123").exists()


def test_what_a_run_may_need_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Used within a day, or what it is slow to fetch again and not computed."""
    keep("features", "used.sqlite", days=0.5)
    keep("downloads", "photo.jpg", days=99)
    keep("minio", "v1/minio", days=99)
    monkeypatch.setenv("MEADOW_CACHE_LIMIT", "0")
    cache.evict()

    assert kept() == {"used.sqlite", "photo.jpg", "minio"}


def test_a_database_goes_with_what_is_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log alone would be read into a new database; a fresh log keeps both."""
    keep("features", "old.sqlite", days=9)
    keep("features", "old.sqlite-wal", days=9)
    keep("features", "busy.sqlite", days=9)
    keep("features", "busy.sqlite-wal", days=0)
    monkeypatch.setenv("MEADOW_CACHE_LIMIT", "0.000001")
    cache.evict()

    assert kept() == {"busy.sqlite", "busy.sqlite-wal"}


def test_sizes_are_told_by_kind() -> None:
    """As `meadow doctor` shows them."""
    assert cache.sizes() == {}
    keep("features", "a.sqlite", days=0, size=10)
    keep("backbones", "0123/b.onnx", days=0, size=20)

    assert cache.sizes() == {"backbones": 20, "features": 10}


@pytest.mark.parametrize("value", ["", "much", "nan", "inf"])
def test_a_limit_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """With what is allowed."""
    monkeypatch.setenv("MEADOW_CACHE_LIMIT", value)

    with pytest.raises(MeadowError, match="a number of gigabytes is allowed"):
        cache.evict()
