"""A full disk or a kill in the middle of any stage: a rerun completes, and no half is whole."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
STAGES = ("prepare", "train", "evaluate", "package")
SMALLEST = {"prepare": 20_000, "train": 500_000, "evaluate": 600, "package": 500_000}  # bytes


@pytest.fixture
def copy(packaged: Path, tmp_path: Path) -> Path:
    """Return a copy of a project in which all stages have run."""
    return Path(shutil.copytree(packaged, tmp_path / "copy"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return the outs of all stages."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for top in ("data/prepared", "models/classifier", "models/bento", "metrics", "reports")
        for file in sorted((folder / top).rglob("*"))
        if file.is_file()
    }


def start(stage: str, folder: Path, limit: int | None = None) -> subprocess.Popen[str]:
    def limited() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, "-m", f"meadow.{stage}"],
        cwd=folder,
        env={**os.environ, "MEADOW_CACHE": str(folder / "cache")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
    )


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(copy: Path, stage: str) -> None:
    """One line that says so, no half-written file, and a rerun completes."""
    before = contents(copy)
    with start(stage, copy, SMALLEST[stage]) as run:
        _, said = run.communicate()

    assert run.returncode == 1
    assert "make room" in said.strip().splitlines()[-1]
    assert not list(copy.rglob("*.part"))
    with start(stage, copy) as run:
        _, said = run.communicate()
    assert run.returncode == 0, said
    assert before == contents(copy)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill(copy: Path, stage: str, share: float) -> None:
    """At any moment: what is there afterwards is the old or the new out, and a rerun completes."""
    before = contents(copy)
    started = time.monotonic()
    with start(stage, copy) as run:
        run.communicate()
    whole = time.monotonic() - started
    with start(stage, copy) as run:
        time.sleep(share * whole)
        run.send_signal(signal.SIGKILL)
        run.communicate()

    left = contents(copy)
    assert all(
        before[name] == data
        for name, data in left.items()
        if name in before and "metrics/train" not in name
    )
    with start(stage, copy) as run:
        _, said = run.communicate()
    assert run.returncode == 0, said
    assert before == contents(copy)
    assert not list(copy.glob("*/*.part"))
