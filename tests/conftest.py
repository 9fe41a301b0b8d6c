"""A project folder of its own for each test that needs one."""

import shutil
from pathlib import Path

import pytest
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
