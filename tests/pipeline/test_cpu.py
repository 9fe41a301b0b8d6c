import os
from pathlib import Path

import pytest

from meadow.pipeline import cpu


def test_a_number_of_workers_is_taken_as_it_is() -> None:
    """Also above the number of cores."""
    assert cpu.cores(1000) == 1000


@pytest.mark.parametrize("affinity", [True, False])
def test_the_lesser_of_cores_and_quota_counts(
    affinity: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than cores would only wait for each other. macOS knows no affinity."""
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    if affinity:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6), raising=False)
    else:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)

    for quotas, cores in (([], 6), ([3, 9], 3), ([9], 6)):
        monkeypatch.setattr(cpu, "_quotas", lambda quotas=quotas: quotas)
        assert cpu.cores() == cores


def test_settings_of_all_groups_above_are_read(tmp_path: Path) -> None:
    """Version 1 and macOS have no such files."""
    (tmp_path / "cgroup").write_text("0::/user/job\n")
    for group, quota in (("", "max 100000"), ("user", "250000 100000"), ("user/job", "50000 1000")):
        (tmp_path / "root" / group).mkdir(exist_ok=True)
        (tmp_path / "root" / group / "cpu.max").write_text(quota)

    def read(root: str, membership: str) -> list[str]:
        return cpu.group_settings("cpu.max", tmp_path / root, tmp_path / membership)

    assert read("root", "cgroup") == ["50000 1000", "250000 100000", "max 100000"]
    assert read("root", "absent") == ["max 100000"]
    assert read("absent", "cgroup") == []


def test_a_part_of_a_core_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """And "max" is no limit."""
    texts = ["50000 1000", "250000 100000\n", "max 100000"]
    monkeypatch.setattr(cpu, "group_settings", lambda _: texts)

    assert cpu._quotas() == [50, 3]
