import csv
import json
import re
import shutil
import stat
import subprocess
import sys
import urllib.request
from collections import Counter
from hashlib import sha256
from importlib.metadata import requires
from pathlib import Path

import psutil
import pytest
import yaml
from clones import BROKEN_PROXIES
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from toys import encoded, photo

from meadow import package
from meadow.commands.doctor import CONSTRAINTS, GROUPS, pins
from meadow.errors import MeadowError
from meadow.serving import server
from meadow.serving.client import Client

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_rebuild_has_the_same_bytes_and_version(in_packaged: Path) -> None:
    """BentoML would stamp the time of the build and draw a version at random."""
    before = contents(server.BENTO)
    shutil.rmtree(server.BENTO)
    command = [sys.executable, "-m", "meadow.package"]
    subprocess.run(command, check=True, capture_output=True)

    assert before == contents(server.BENTO)


def test_the_version_is_the_content(in_packaged: Path, tmp_path: Path) -> None:
    """Another model, module or pin is another version; nothing else is."""
    one = package.content_hash(package.stage(tmp_path / "one"))
    same = package.content_hash(package.stage(tmp_path / "same"))
    changed = package.stage(tmp_path / "changed")
    with (changed / "src/meadow/service.py").open("a") as file:
        file.write("# changed\n")

    assert one == same != package.content_hash(changed)
    assert one[:12] == json.loads(Path("metrics/package.json").read_text())["version"]
    assert one[:12] == yaml.safe_load((server.BENTO / "bento.yaml").read_text())["version"]


def test_it_holds_the_model_and_no_trace_of_the_machine(in_packaged: Path) -> None:
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
    assert not [name for name in held if "__pycache__" in name]


def test_the_model_card_goes_with_it(in_packaged: Path) -> None:
    """It is the README that BentoML shows."""
    card = Path("reports/model-card.md").read_bytes()

    assert card == (server.BENTO / "README.md").read_bytes()


def test_it_installs_the_serving_group_alone_and_locked(in_packaged: Path) -> None:
    """Each package and all it brings along, pinned; no PyTorch, no DVC."""
    locked = pins(server.BENTO / "env/python/requirements.txt")

    assert {"bentoml", "numpy", "onnxruntime", "pillow"} <= locked.keys()
    assert not {"torch", "torchvision", "dvc", "dvclive", "onnx"} & locked.keys()
    for name in locked:
        for line in requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None:
                assert canonicalize_name(needed.name) in locked, f"{name}: {line}"


def test_a_linked_model_is_packed_as_a_file(in_packaged: Path, tmp_path: Path) -> None:
    """BentoML would copy the link, and the Bento hold no model (DVC's cache.type symlink)."""
    model = Path("models/classifier/model.onnx")
    content = model.read_bytes()
    moved = model.rename(tmp_path / "model.onnx")
    model.symlink_to(moved)
    staged = package.stage(tmp_path / "staged") / model
    moved.unlink()

    assert staged.read_bytes() == content
    with pytest.raises(MeadowError, match=r"model\.onnx, which is missing"):
        package.stage(tmp_path / "again")


def test_another_answer_than_evaluates_fails_the_stage(in_packaged: Path, tmp_path: Path) -> None:
    """The gate that keeps report and production the same."""
    predictions = Path("reports/predictions.csv")
    text = predictions.read_text()
    header, first, rest = text.split("\n", 2)
    *start, p, q = first.split(",")
    predictions.write_text("\n".join([header, ",".join([*start, q, p]), rest]))

    with pytest.raises(MeadowError, match="evaluate says"):
        package.compare(server.BENTO, Path("data/raw"))


def test_the_bento_runs_its_own_code(in_packaged: Path) -> None:
    """What is deployed is what is inside, not the checkout it was built from."""
    (server.BENTO / "src/meadow/serving/static/docs.html").write_text("from the Bento")

    with (
        server.serving(server.BENTO) as url,
        urllib.request.urlopen(f"{url}/docs") as response,
    ):
        assert response.read() == b"from the Bento"


@pytest.mark.parametrize("killed", [0, 1])
def test_nothing_of_the_server_outlives_its_parent(in_packaged: Path, killed: int) -> None:
    """Neither BentoML's process the stage that started it, nor the workers BentoML's process."""
    code = (
        "import time\nfrom meadow.serving import server\n"
        "with server.serving(server.BENTO) as url:\n    print(url, flush=True)\n"
        "    time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline()
        stage = psutil.Process(run.pid)
        tree = [stage, *stage.children(recursive=True)]
        tree[killed].kill()
        left = psutil.wait_procs(tree[killed + 1 :], timeout=60)[1]
        run.kill()

    assert len(tree) == 3
    assert left == []


def test_the_workspace_is_served_too(in_packaged: Path) -> None:
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


def test_a_photo_of_any_size_that_prepare_takes_is_compared(
    in_packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 MB here; and no setting or proxy of the shell has a say in it."""
    with Path("reports/predictions.csv").open(encoding="utf-8", newline="") as file:
        record = next(csv.DictReader(file))
    data = (Path("data/raw") / record["path"]).read_bytes()
    monkeypatch.setattr(package, "sample", lambda _: [record])
    for name, value in BROKEN_PROXIES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BENTOML_CONFIG", "no/such")
    monkeypatch.setenv("MEADOW_MODEL", "no/such")
    monkeypatch.setenv("MEADOW_MAX_BODY", "2000")
    photo = tmp_path / record["path"]
    photo.parent.mkdir(parents=True)
    photo.write_bytes(data + bytes(25 * 2**20))  # what follows the picture is not looked at
    record["sha256"] = sha256(photo.read_bytes()).hexdigest()

    assert package.compare(server.BENTO, tmp_path)[0] == 1


def test_the_shell_has_no_say_in_the_stage(
    in_packaged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A setting that no service would start with, a misspelt one, and BentoML's: the same Bento."""
    before = Path("metrics/package.json").read_bytes()
    for name in ("MEADOW_QUEUE", "MEADOW_APIKEY", "BENTOML_CONFIG"):
        monkeypatch.setenv(name, "0")
    done = subprocess.run(
        [sys.executable, "-m", "meadow.package"], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert Path("metrics/package.json").read_bytes() == before


def test_the_photos_compared_are_of_all_classes() -> None:
    """Chosen by hash, in turn from each class: of the first by path some classes have none."""
    records = [
        {"label": label, "sha256": sha256(f"{label}{number}".encode()).hexdigest()}
        for label, count in (("many", 500), ("few", 3), ("some", 150))
        for number in range(count)
    ]
    chosen = package.sample(records)

    counts = Counter(record["label"] for record in chosen)
    assert counts["few"] == 3
    assert {counts["many"], counts["some"]} == {98, 99}
    assert package.sample(records[::-1]) == chosen


def test_others_may_read_the_bento(packaged: Path) -> None:
    """The container's user is not the one who built it; BentoML's home is its owner's alone."""
    assert stat.S_IMODE((packaged / server.BENTO).stat().st_mode) == 0o755


def test_every_requirement_is_locked() -> None:
    """`make lock` has run since the last change: each pin of a group stands in both locks."""
    serving, locked = pins(ROOT / "requirements/serving.lock.txt"), pins(ROOT / CONSTRAINTS)
    for group in GROUPS:
        lines = (ROOT / group).read_text("utf-8").splitlines()
        direct = pins(ROOT / group)

        assert len(direct) == len([line for line in lines if line and not line.startswith("#")])
        assert direct.items() <= locked.items()
    assert pins(ROOT / GROUPS[0]).items() <= serving.items() <= locked.items()
