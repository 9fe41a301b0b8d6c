"""A project folder of its own for each test that needs one."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, missing, started
from ruamel.yaml import YAML
from toys import SetParams, draw_set

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty project with the committed params.yaml and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path / "cache"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "models/pretrained").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def set_params(project: Path) -> SetParams:
    """Return a function that writes values like `set_params(prepare={"size": 32})`."""

    def write(**sections: dict[str, object]) -> None:
        yaml = YAML()
        values = yaml.load(Path("params.yaml"))
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        yaml.dump(values, Path("params.yaml"))

    return write


@pytest.fixture
def toy_set(project: Path, set_params: SetParams) -> Path:
    """Draw 2 classes of 16 photos into data/raw, to be seen at 32 px by a small network."""
    set_params(
        prepare={"size": 32, "val": 0.25, "test": 0.25},
        train={"arch": "shufflenet_v2_x0_5", "epochs": 2, "batch_size": 16},
    )
    return draw_set(project / "data/raw", {"gold": 16, "moss": 16})


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project in which prepare, train and evaluate have run once on a toy set."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copy(ROOT / "bentofile.yaml", folder)
    for name in ("requirements", "src"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / "models/pretrained").mkdir(parents=True)
    yaml = YAML()
    values = yaml.load(ROOT / "params.yaml")
    values["prepare"].update(size=32, val=0.25, test=0.25)
    values["train"].update(method="probe", arch="shufflenet_v2_x0_5")
    yaml.dump(values, folder / "params.yaml")
    draw_set(folder / "data/raw", {"gold": 24, "moss": 24})
    _run(folder, "prepare", "train", "evaluate")
    return folder


@pytest.fixture(scope="session")
def packaged(built: Path) -> Path:
    """Return the built project with its Bento."""
    _run(built, "package")
    return built


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a Chromium. It lasts one module: while it runs, no other test can use asyncio."""
    if reason := missing():
        # .ci/run sets it, and installs what is missing
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with started() as chromium:
        yield chromium


def _run(folder: Path, *stages: str) -> None:
    environment = {**os.environ, "MEADOW_CACHE": str(folder / "cache")}
    for stage in stages:
        command = [sys.executable, "-m", f"meadow.{stage}"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture
def in_built(built: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in the built project; a test that writes there puts it back."""
    monkeypatch.chdir(built)
    monkeypatch.setenv("MEADOW_CACHE", str(built / "cache"))
    return built
