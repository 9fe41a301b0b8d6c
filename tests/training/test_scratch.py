import os
from errno import ENOSPC
from pathlib import Path

import numpy as np
import pytest

from meadow.errors import MeadowError
from meadow.training import scratch


@pytest.fixture(autouse=True)
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every array for a large one, and have a cache of one's own."""
    monkeypatch.setattr(scratch, "LARGE", 0)
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))


def test_a_large_array_is_like_any_other_and_leaves_no_file(tmp_path: Path) -> None:
    """Its file has no name: a killed process leaves none either."""
    array = scratch.empty((300, 7))
    array[:] = np.arange(7)

    assert np.array_equal(array[[5, 299]], [np.arange(7)] * 2)
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_disk_without_room_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written; a write to a full disk would kill the process."""

    def full(*_: int) -> None:
        raise OSError(ENOSPC, os.strerror(ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)

    with pytest.raises(MeadowError, match=r"no room for 0\.0 GB .* MEADOW_CACHE"):
        scratch.empty((300, 7))
