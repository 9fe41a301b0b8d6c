"""The pipeline as its users run it, by DVC, in a clone of the project with a toy set."""

import hashlib
import json
import re
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch
import torchvision
import yaml
from clones import Run, copied, runner
from toys import draw_set

pytestmark = pytest.mark.slow
MINE = "models/pretrained/mine.pth"


@pytest.fixture(scope="module")
def clone(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a toy set and one run."""
    return copied(first_run, tmp_path_factory.mktemp("clone"))


@pytest.fixture
def run(clone: Path) -> Run:
    """Return a function that runs a command in the clone, as it was committed."""
    run = runner(clone)
    run("git", "reset", "-q", "--hard")
    run("dvc", "checkout", "-q", "--force")
    return run


def lock(clone: Path) -> dict[str, str]:
    stages = yaml.safe_load((clone / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}


def test_a_run_changes_no_file_but_its_outs(clone: Path, run: Run) -> None:
    """DVCLive would rewrite dvc.yaml; a second run has nothing to do."""
    assert "didn't change" in run("dvc", "repro")
    assert run("git", "status", "--porcelain") == ""


def test_same_inputs_same_bytes_at_another_number_of_threads(clone: Path, run: Run) -> None:
    """Every out of all stages, without any cache of the first run."""
    before = lock(clone)
    text = (clone / "params.yaml").read_text().replace("workers: 0", "workers: 3")
    (clone / "params.yaml").write_text(text)
    run("dvc", "repro", "--force", "--no-run-cache", MEADOW_CACHE=str(clone / ".dvc/tmp/other"))

    assert before == lock(clone)


def test_editing_the_service_reruns_package_alone(clone: Path, run: Run) -> None:
    """And makes another version of the Bento."""
    before = lock(clone)
    with (clone / "src/meadow/service.py").open("a") as file:
        file.write("# edited\n")
    output = run("dvc", "repro")
    after = lock(clone)

    assert [line for line in output.splitlines() if line.startswith("Running")] == [
        "Running stage 'package':"
    ]
    assert [path for path in before if before[path] != after[path]] == [
        "metrics/package.json",
        "models/bento",
    ]


def test_editing_a_page_reruns_report_alone(clone: Path, run: Run) -> None:
    """Style and words cost no measuring, and no other Bento."""
    before = lock(clone)
    with (clone / "src/meadow/reporting/templates/page.css").open("a") as file:
        file.write("h1 { color: teal }\n")
    said = run("dvc", "repro")
    after = lock(clone)

    assert [line for line in said.splitlines() if line.startswith("Running")] == [
        "Running stage 'report':"
    ]
    assert [path for path in before if before[path] != after[path]] == ["reports/report.html"]


def test_a_decision_on_a_photo_reruns_prepare(clone: Path, run: Run) -> None:
    """And what it did to the data is in the diff of the metrics."""
    command = [sys.executable, "-c", "from meadow.cli import main; main()", "review"]
    run(*command, "gold/003.jpg", "--relabel", "moss")
    run("dvc", "repro", "prepare")
    diff = json.loads(run("dvc", "metrics", "diff", "--json"))["metrics/prepare.json"]

    assert diff["overrides.relabelled"] == {"old": 0, "new": 1, "diff": 1}
    assert " M data/overrides.csv" in run("git", "status", "--porcelain").splitlines()


def test_an_experiment_by_one_line(clone: Path, run: Run) -> None:
    """`dvc exp run -S`, show, diff of metrics and plots, and photo by photo."""
    run(
        "dvc",
        "exp",
        "run",
        "-n",
        "wider",
        "evaluate",
        "-S",
        "train.arch=shufflenet_v2_x1_0",
        "-S",
        "train.finetune.epochs=1",
    )
    shown = json.loads(run("dvc", "exp", "show", "--json"))
    names = [e["name"] for base in shown for e in base.get("experiments") or []]
    diff = json.loads(run("dvc", "metrics", "diff", "HEAD", "wider", "--json"))
    params = json.loads(run("dvc", "params", "diff", "HEAD", "wider", "--json"))
    compared = run(
        sys.executable, "-c", "from meadow.cli import main; main()", "compare", "HEAD", "wider"
    )
    page = run("dvc", "plots", "diff", "HEAD", "wider", "-o", ".dvc/tmp/plots").strip()

    assert names == ["wider"]
    assert "metrics/evaluate.json" in diff
    assert params["params.yaml"]["train.finetune.epochs"] == {"old": 2, "new": 1, "diff": -1}
    assert re.search(r"on the test photos\n  (Of \d+ photos wider mends|wider gives)", compared)
    assert "vega" in Path(page.removeprefix("file://")).read_text()
    assert "dvc.yaml" not in run("git", "diff", "--name-only")


def test_queued_experiments_run_with_pretrained_weights(clone: Path, run: Run) -> None:
    """In a workspace of their own, where only what DVC and Git track is to be found."""
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(num_classes=4)
    torch.save(network.state_dict(), clone / ".dvc/tmp/mine.pth")
    run(sys.executable, "-c", "from meadow.cli import main; main()", "weights", ".dvc/tmp/mine.pth")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "weights")
    try:
        for l2 in ("0.1", "1.0"):
            run(
                "dvc",
                "exp",
                "run",
                "--queue",
                "-n",
                f"l2-{l2[0]}",
                "-S",
                "train.method=probe",
                "-S",
                f"train.probe.l2={l2}",
                "evaluate",
            )
        run("dvc", "queue", "start")
        end = time.monotonic() + 900
        while any(word in run("dvc", "queue", "status") for word in ("Queued", "Running")):
            assert time.monotonic() < end
            time.sleep(1)
        shown = json.loads(run("dvc", "exp", "show", "--json"))
        metrics = {
            e["name"]: e["revs"][0]["data"]["metrics"]["metrics/evaluate.json"]["data"]
            for base in shown
            for e in base.get("experiments") or []
            if e["name"] and e["name"].startswith("l2-")
        }
    finally:
        run("git", "reset", "-q", "--hard", "HEAD~1")

    assert sorted(metrics) == ["l2-0", "l2-1"]
    assert metrics["l2-0"]["cv_log_loss"] != metrics["l2-1"]["cv_log_loss"]


def test_another_methods_parameters_rerun_nothing(clone: Path, run: Run) -> None:
    """Train depends on the section of its method alone, also as an experiment."""
    text = (clone / "params.yaml").read_text()
    try:
        other = re.sub(r"l2: \S+", "l2: 0.5", text)
        (clone / "params.yaml").write_text(other)
        assert "up to date" in run("dvc", "status", "train", "evaluate")
        assert "didn't change" in run("dvc", "exp", "run", "train", "-S", "train.probe.l2=0.25")
        (clone / "params.yaml").write_text(re.sub(r" lr: \S+", " lr: 0.5", text))
        assert "train.finetune" in run("dvc", "status", "train")
    finally:
        (clone / "params.yaml").write_text(text)


def test_other_weights_at_the_same_place_are_noticed(clone: Path, run: Run) -> None:
    """The content of models/pretrained decides, not the name in params.yaml."""
    mine = clone / MINE
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("weights: none ", f"weights: {MINE} "))
    try:
        for seed in (0, 1):
            torch.manual_seed(seed)
            torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), mine)
            run("dvc", "repro", "train")
            about = json.loads((clone / "models/classifier/model.json").read_text())

            assert about["weights"] == hashlib.sha256(mine.read_bytes()).hexdigest()
    finally:
        mine.unlink()


def test_another_folder_of_photos_by_one_parameter(clone: Path, run: Run) -> None:
    """`-S data.dir=...` swaps the set."""
    draw_set(clone / "data/mine", {"sky": 12, "rust": 12, "moss": 12})
    run("dvc", "exp", "run", "-S", "data.dir=data/mine")

    assert json.loads((clone / "models/classifier/model.json").read_text())["classes"] == [
        "moss",
        "rust",
        "sky",
    ]
    shutil.rmtree(clone / "data/mine")
