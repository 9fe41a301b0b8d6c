"""Projects and tools that tests of several packages need."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, started
from clones import toy_clone
from filelock import FileLock
from ruamel.yaml import YAML
from tools import need, summary
from toys import SetParams, draw_set

from meadow.experiments import recipes

ROOT = Path(__file__).parents[1]
Once = Callable[[str, Callable[[Path], object]], Path]
StandIn = Callable[[Path], Path]


def pytest_configure(config: pytest.Config) -> None:
    """Give commits an author where Git knows none: in a file, as libgit2 reads no variables."""
    folder = tempfile.TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    (Path(folder.name) / "git").mkdir()
    (Path(folder.name) / "git/config").write_text("[user]\n\tname = t\n\temail = t@localhost\n")
    os.environ["XDG_CONFIG_HOME"] = folder.name


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Obey the marker `needs`."""
    for marker in item.iter_markers("needs"):
        need(*marker.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line which absent tools have skipped tests."""
    skipped = terminalreporter.stats.get("skipped", [])
    # the representation of a skipped test is its path, line and reason
    if line := summary(report.longrepr[2] for report in skipped):
        terminalreporter.write_line(line)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty project with the recipe `scratch` and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path / "cache"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    recipes.set_params(recipes.read("scratch"))  # small, and needs no weights
    (tmp_path / "models/pretrained").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()  # where `meadow` finds the root of the project
    return tmp_path


@pytest.fixture
def set_params(project: Path) -> SetParams:
    """Return a function that writes values like `set_params(prepare={"size": 32})`."""

    def write(**sections: dict[str, Any]) -> None:
        recipes.set_params(sections)

    return write


@pytest.fixture
def toy_set(project: Path, set_params: SetParams) -> Path:
    """Draw 2 classes of 16 photos into data/raw, to be seen at 32 px by a small network."""
    set_params(
        prepare={"size": 32, "val": 0.25, "test": 0.25},
        train={"arch": "shufflenet_v2_x0_5", "finetune": {"epochs": 2, "batch_size": 16}},
    )
    return draw_set(project / "data/raw", {"gold": 16, "moss": 16})


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Return a function that makes a folder in one process of the run; the others wait for it."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top

    def make_once(name: str, make: Callable[[Path], object]) -> Path:
        folder, made = top / name, top / f"{name}.made"
        with FileLock(top / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return make_once


@pytest.fixture(scope="session")
def built(once: Once) -> Path:
    """Return a project in which all stages but package have run: to read, not to write."""

    def make(folder: Path) -> None:
        shutil.copy(ROOT / "bentofile.yaml", folder)
        for name in ("requirements", "src"):
            shutil.copytree(ROOT / name, folder / name)
        (folder / "models/pretrained").mkdir(parents=True)
        yaml = YAML()
        values = yaml.load(ROOT / "params.yaml")
        values["prepare"].update(size=32, val=0.25, test=0.25)
        values["train"].update(
            method="probe", arch="shufflenet_v2_x0_5", weights="none", precision="float32"
        )
        yaml.dump(values, folder / "params.yaml")
        draw_set(folder / "data/raw", {"gold": 24, "moss": 24})
        _run(folder, "prepare", "train", "evaluate", "report")

    return once("built", make)


@pytest.fixture(scope="session")
def packaged(once: Once, built: Path) -> Path:
    """Return the built project with its Bento: to read, not to write."""

    def make(folder: Path) -> None:
        shutil.copytree(built, folder, dirs_exist_ok=True)
        _run(folder, "package")

    return once("packaged", make)


@pytest.fixture
def stand_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Return a function that copies a project and goes into the copy."""

    def copy(project: Path) -> Path:
        folder = tmp_path_factory.mktemp(project.name)
        shutil.copytree(project, folder, dirs_exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("MEADOW_CACHE", str(folder / "cache"))
        return folder

    return copy


@pytest.fixture
def in_built(built: Path, stand_in: StandIn) -> Path:
    """Stand in a copy of the built project."""
    return stand_in(built)


@pytest.fixture
def in_packaged(packaged: Path, stand_in: StandIn) -> Path:
    """Stand in a copy of the packaged project."""
    return stand_in(packaged)


@pytest.fixture(scope="session")
def first_run(once: Once) -> Path:
    """Return a clone with a toy set and one committed run: to copy, not to write."""
    return once("first-run", toy_clone)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a Chromium. It lasts one module: while it runs, no other test can use asyncio."""
    with started() as chromium:
        yield chromium


def _run(folder: Path, *stages: str) -> None:
    environment = {**os.environ, "MEADOW_CACHE": str(folder / "cache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # most users have it not
    for stage in stages:
        command = [sys.executable, "-m", f"meadow.{stage}"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
