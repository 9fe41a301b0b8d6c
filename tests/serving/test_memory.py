import os
from pathlib import Path

import psutil
import pytest

from meadow.serving import memory


def test_memory_is_that_of_the_workers_that_live(tmp_path: Path) -> None:
    """The files of a worker that was killed stay behind."""
    gone = max(psutil.pids()) + 2_000_000  # above what Linux gives
    for name in (f"counter_{os.getpid()}", f"histogram_{os.getpid()}", f"counter_{gone}"):
        (tmp_path / f"{name}.db").touch()
    resident, limit = (family.samples[0].value for family in memory.Memory(tmp_path).collect())

    assert resident == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert resident < limit <= psutil.virtual_memory().total


def test_the_least_limit_of_the_groups_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may have less than the machine."""
    monkeypatch.setattr(memory, "group_settings", lambda _: ["1000000\n", "max\n", "2000000\n"])

    assert memory.limit() == 1_000_000
