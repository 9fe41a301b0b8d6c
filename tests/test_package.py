import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import requires
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from toys import encoded, photo

from meadow import package
from meadow.errors import MeadowError
from meadow.serving import pinned_requirements, server
from meadow.serving.client import Client

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_rebuild_has_the_same_bytes_and_version(packaged: Path, in_built: Path) -> None:
    """BentoML would stamp the time of the build and draw a version at random."""
    before = contents(server.BENTO)
    shutil.rmtree(server.BENTO)
    command = [sys.executable, "-m", "meadow.package"]
    subprocess.run(command, check=True, capture_output=True)

    assert before == contents(server.BENTO)


def test_the_version_is_the_content(packaged: Path, in_built: Path, tmp_path: Path) -> None:
    """Another model, module or pin is another version; nothing else is."""
    one = package.content_hash(package.stage(tmp_path / "one"))
    same = package.content_hash(package.stage(tmp_path / "same"))
    changed = package.stage(tmp_path / "changed")
    with (changed / "src/meadow/service.py").open("a") as file:
        file.write("# changed\n")

    assert one == same != package.content_hash(changed)
    assert one[:12] == json.loads(Path("metrics/package.json").read_text())["version"]
    assert one[:12] == yaml.safe_load((server.BENTO / "bento.yaml").read_text())["version"]


def test_it_holds_the_model_and_no_trace_of_the_machine(packaged: Path, in_built: Path) -> None:
    """No absolute path, no time, nothing of the learning side."""
    held = contents(server.BENTO)

    assert (
        held["src/models/classifier/model.onnx"]
        == Path("models/classifier/model.onnx").read_bytes()
    )
    for name, data in held.items():
        assert str(Path.cwd()).encode() not in data, name
        assert not re.search(rb"20[2-9]\d-\d\d-\d\d", data), name
    assert not [name for name in held if "train" in name or "torch" in name]


def test_the_model_card_goes_with_it(packaged: Path, in_built: Path) -> None:
    """It is the README that BentoML shows."""
    card = Path("reports/model-card.md").read_bytes()

    assert card == (server.BENTO / "README.md").read_bytes()


def test_it_installs_the_serving_group_alone_and_locked(packaged: Path, in_built: Path) -> None:
    """Each package and all it brings along, pinned; no PyTorch, no DVC."""
    text = (server.BENTO / "env/python/requirements.txt").read_text()
    pins = dict(line.split("==") for line in text.split() if "==" in line)

    assert {"bentoml", "numpy", "onnxruntime", "pillow"} <= pins.keys()
    assert not {"torch", "torchvision", "dvc", "dvclive", "onnx"} & pins.keys()
    for name in pins:
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None:
                assert pinned_requirements.canonicalize_name(needed.name) in pins, f"{name}: {line}"


def test_a_linked_model_is_refused(packaged: Path, in_built: Path, tmp_path: Path) -> None:
    """BentoML would copy the link, and the Bento hold no model (DVC's cache.type symlink)."""
    model = Path("models/classifier/model.onnx")
    moved = model.rename(tmp_path / "model.onnx")
    model.symlink_to(moved)
    try:
        with pytest.raises(MeadowError, match=r"model\.onnx, which is a link"):
            package.stage(tmp_path / "staged")
    finally:
        model.unlink()
        moved.rename(model)


def test_another_answer_than_evaluates_fails_the_stage(
    packaged: Path, in_built: Path, tmp_path: Path
) -> None:
    """The gate that keeps report and production the same."""
    predictions = Path("reports/predictions.csv")
    text = predictions.read_text()
    header, first, rest = text.split("\n", 2)
    *start, p, q = first.split(",")
    predictions.write_text("\n".join([header, ",".join([*start, q, p]), rest]))
    try:
        with pytest.raises(MeadowError, match="evaluate says"):
            package.compare(server.BENTO, Path("data/raw"))
    finally:
        predictions.write_text(text)


def test_the_bento_runs_its_own_code(packaged: Path, in_built: Path) -> None:
    """What is deployed is what is inside, not the checkout it was built from."""
    page = server.BENTO / "src/meadow/serving/static/docs.html"
    text = page.read_text()
    page.write_text("from the Bento")
    try:
        with (
            server.serving(server.BENTO) as url,
            urllib.request.urlopen(f"{url}/docs") as response,
        ):
            assert response.read() == b"from the Bento"
    finally:
        page.write_text(text)


def test_the_server_ends_with_the_process_that_started_it(packaged: Path, in_built: Path) -> None:
    """A killed stage must not leave one behind on its port."""
    code = (
        "import time\nfrom meadow import serving\n"
        "with serving.serving(serving.BENTO) as url:\n    print(url, flush=True)\n"
        "    time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        url = run.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/livez") as response:
            assert response.status == 200
        run.kill()

    for _ in range(100):
        try:
            urllib.request.urlopen(f"{url}/livez", timeout=1).close()
        except OSError:
            return
        time.sleep(0.1)
    pytest.fail("the server still answers after 10 s")


def test_the_workspace_is_served_too(packaged: Path, in_built: Path) -> None:
    """`bentoml serve meadow.service:PhotoClassifier`."""
    with server.serving("meadow.service:PhotoClassifier") as url, Client(url) as client:
        assert client.ask(encoded(photo(3)))["label"] in ("gold", "moss")


def test_a_service_without_a_model_does_not_start(project: Path) -> None:
    """And says which command makes one."""
    with (
        pytest.raises(MeadowError, match=r"did not start[\s\S]*dvc repro"),
        server.serving("meadow.service:PhotoClassifier"),
    ):
        pass


def test_every_requirement_is_pinned() -> None:
    """A group pins what it names, and constraints.txt agrees with it."""
    locked = pinned_requirements.pins(ROOT / "requirements/constraints.txt")
    for group in ("serving", "learning", "tracking", "dev"):
        lines = (ROOT / f"requirements/{group}.txt").read_text().splitlines()
        pins = pinned_requirements.pins(ROOT / f"requirements/{group}.txt")

        assert len(pins) == len([line for line in lines if line and not line.startswith("#")])
        assert {name: locked[name] for name in pins} == pins
