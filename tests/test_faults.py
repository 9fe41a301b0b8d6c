"""A full disk or a kill in the middle of any stage: a rerun completes, and no half is whole."""

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from meadow.pipeline import atomic

pytestmark = pytest.mark.slow
STAGES = ("prepare", "train", "evaluate", "report", "package")
SMALLEST = {
    "prepare": 20_000,
    "train": 500_000,
    "evaluate": 600,
    "report": 5_000,
    "package": 500_000,
}  # bytes


@pytest.fixture
def copy(packaged: Path, tmp_path: Path) -> Path:
    """Return a copy of a project in which all stages have run."""
    return Path(shutil.copytree(packaged, tmp_path / "copy"))


OUTS = ("data/prepared", "models/classifier", "models/bento", "metrics", "reports")
ASIDE = ".old.part/"  # where a kill may leave the old version of a folder; the next run takes it


def contents(folder: Path) -> dict[str, bytes]:
    """Return the outs of all stages, in place or laid aside."""
    files = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for out in OUTS
        for place in (folder / out, atomic.beside(folder / out)[1])
        for file in sorted(place.rglob("*"))
        if file.is_file()
    }
    aside = {name.replace(ASIDE, "/"): data for name, data in files.items() if ASIDE in name}
    return aside | {name: data for name, data in files.items() if ASIDE not in name}


def start(stage: str, folder: Path, limit: int | None = None) -> subprocess.Popen[str]:
    def limited() -> None:
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = {**os.environ, "MEADOW_CACHE": str(folder / "cache")}
    if limit:  # coverage's own file would be the first to meet the limit
        environment = {k: v for k, v in environment.items() if not k.startswith("COVERAGE_")}
    return subprocess.Popen(
        [sys.executable, "-m", f"meadow.{stage}"],
        cwd=folder,
        env=environment,
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


# Imports a stage once; for each line "KIND N" of stdin it runs the stage in a child, which kills
# itself right before its N-th operation of that kind on a file, or for "after" right after the N-th
# rename. Answers with the child's exit code and its count of operations by kind.
DRIVER = """
import importlib, os, signal, sys
from collections import Counter
from pathlib import Path

name, log = sys.argv[1:]
stage = importlib.import_module(f"meadow.{name}")
done = Counter()

def watch(event, arguments):
    kind = event.removeprefix("os.")
    if kind == "open":
        mode = arguments[1]
        if not isinstance(mode, str) or not set(mode) & set("wxa"):
            return
    elif kind not in ("rename", "remove", "rmdir"):
        return
    place = arguments[1] if kind == "rename" else arguments[0]
    if isinstance(place, int) or not (Path.cwd() / os.fsdecode(place)).is_relative_to(Path.cwd()):
        return
    if wanted == "after" and done["rename"] == number:
        os.kill(os.getpid(), signal.SIGKILL)
    done[kind] += 1
    if kind == wanted and done[kind] == number:
        os.kill(os.getpid(), signal.SIGKILL)

for line in sys.stdin:
    wanted, number = line.split()[0], int(line.split()[1])
    child = os.fork()
    if not child:
        sys.addaudithook(watch)
        getattr(stage, name)()
        if wanted == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        Path(log).write_text(f"{done['open']} {done['rename']}")
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_kill(copy: Path, tmp_path: Path, stage: str) -> None:
    """Amid the writing, before and after each rename: all outs are there, and a rerun completes."""
    before = {name: data for name, data in contents(copy).items() if "metrics/train" not in name}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, stage, str(tmp_path / "counts")],
        cwd=copy, env={**os.environ, "MEADOW_CACHE": str(copy / "cache")}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    ) as driver:  # fmt: skip
        commands, answers = driver.stdin, driver.stderr
        assert commands
        assert answers

        def run(moment: str) -> str:
            print(moment, file=commands, flush=True)
            return answers.readline().strip()

        assert run("never 0") == "0"
        opened, renamed = map(int, (tmp_path / "counts").read_text().split())
        assert renamed
        moments = [f"{kind} {n + 1}" for n in range(renamed) for kind in ("rename", "after")]
        for moment in [f"open {opened // 2 + 1}", *moments]:
            assert run(moment) == str(-signal.SIGKILL)
            left = contents(copy)
            assert {name: left.get(name) for name in before} == before, moment
        assert run("never 0") == "0"
        commands.close()

    assert {name: contents(copy).get(name) for name in before} == before
    assert not list(copy.glob("*/*.part"))
