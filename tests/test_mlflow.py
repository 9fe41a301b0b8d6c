"""`meadow mlflow` and MEADOW_MLFLOW with a real server: runs in PostgreSQL, artifacts in MinIO."""

import base64
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from clones import attempt, copied, runner, surroundings
from environments import environment
from mlflow_server import BUCKET, LOCK, MlflowServer
from servers import Server, meadow

from meadow.pipeline.ports import answers, free_port
from meadow.serving.parent import end_with_parent
from meadow.training import live

mlflow = pytest.importorskip("mlflow")

pytestmark = [pytest.mark.slow, pytest.mark.needs("MLflow")]
PUSH = meadow("mlflow", "push")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """Return an MLflow server."""
    folder = tmp_path_factory.mktemp("mlflow")
    store = Server(folder / "minio")
    tracking = MlflowServer(folder / "mlflow", store)
    yield tracking
    tracking.close()
    store.kill()


@pytest.fixture(scope="module")
def clone(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone with a release in a stage, one experiment alone, and two of a sweep."""
    folder = copied(first_run, tmp_path_factory.mktemp("clone"))
    run = runner(folder)
    run("git", "tag", "classifier@v1.0.0", "-m", "release")
    run("git", "tag", "classifier#prod#1", "-m", "to prod")
    for name in ("probe", "grid-1", "grid-2"):
        experiment(folder, name)
    return folder


def experiment(folder: Path, name: str) -> None:
    """Make an experiment as DVC does: a commit on HEAD with other values, under its own ref."""
    run = runner(folder)
    head = run("git", "rev-parse", "HEAD").strip()
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(re.sub(r"epochs: \d+", f"epochs: {len(name)}", text))
    run("git", "commit", "-qam", name)
    run("git", "update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", "HEAD")
    run("git", "reset", "-q", "--hard", head)


@pytest.fixture
def client(server: MlflowServer, monkeypatch: pytest.MonkeyPatch, request: Any) -> Any:
    """Return MLflow's own client, and have what the test starts use an experiment of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return mlflow.MlflowClient(server.url)


def runs(client: Any) -> dict[str, Any]:
    """Return the runs of the test's experiment by name, which no two may share."""
    name = os.environ["MLFLOW_EXPERIMENT_NAME"]
    known = client.get_experiment_by_name(name)
    listed = client.search_runs([known.experiment_id])
    by_name = {run.info.run_name: run for run in listed}
    assert len(by_name) == len(listed)
    return by_name


def test_a_run_has_what_git_and_dvc_have(clone: Path, client: Any, tmp_path: Path) -> None:
    """Parameters, figures, steps, pages and tables, and where they come from."""
    run = runner(clone)
    run(*PUSH, "HEAD")
    (pushed,) = runs(client).values()
    evaluated = json.loads((clone / "metrics/evaluate.json").read_text())
    history = client.get_metric_history(pushed.info.run_id, "val/log_loss")
    table = clone / "metrics/train/plots/metrics/val/log_loss.tsv"
    report = client.download_artifacts(pushed.info.run_id, "reports/report.html", tmp_path)
    plots = {file.path for file in client.list_artifacts(pushed.info.run_id, "metrics/plots")}

    assert pushed.info.run_name == "v1.0.0"
    assert pushed.info.status == "FINISHED"
    assert pushed.data.params["train.finetune.epochs"] == "2"
    assert pushed.data.metrics["evaluate.log_loss"] == evaluated["log_loss"]
    with table.open() as file:
        steps = [
            (int(row["step"]), float(row["log_loss"]))
            for row in csv.DictReader(file, delimiter="\t")
        ]
    assert sorted((point.step, point.value) for point in history) == steps
    assert Path(report).read_bytes() == (clone / "reports/report.html").read_bytes()
    assert plots == {f"metrics/plots/{path.name}" for path in (clone / "metrics/plots").iterdir()}
    assert pushed.data.tags["mlflow.source.git.commit"] == run("git", "rev-parse", "HEAD").strip()
    assert pushed.data.tags["data.md5"] in (clone / "data/raw.dvc").read_text()
    assert pushed.data.tags["mlflow.note.content"] == "first run"


def test_a_second_push_changes_nothing_and_a_third_adds_what_is_new(
    clone: Path, client: Any, tmp_path: Path
) -> None:
    """Experiments are under their commit, those of a sweep under the sweep."""
    folder = copied(clone, tmp_path)
    run = runner(folder)
    run(*PUSH)
    before = runs(client)
    assert "0 runs written, 5 were there; 1 versions" in run(*PUSH)
    assert {name: r.to_dictionary() for name, r in before.items()} == {
        name: r.to_dictionary() for name, r in runs(client).items()
    }

    experiment(folder, "grid-3")
    assert "1 runs written" in run(*PUSH)
    after = runs(client)
    parents = {
        name: client.get_run(parent).info.run_name
        for name, r in after.items()
        if (parent := r.data.tags.get("mlflow.parentRunId"))
    }
    assert parents == {
        "probe": "v1.0.0", "grid": "v1.0.0", "grid-1": "grid", "grid-2": "grid", "grid-3": "grid",
    }  # fmt: skip


def pushing(clone: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(PUSH, cwd=clone, env=surroundings(clone), stdout=subprocess.DEVNULL)


def objects(server: MlflowServer) -> int:
    """Return how many artifacts the server has."""
    pages = server.store.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    return sum(page["KeyCount"] for page in pages)


def assert_whole(client: Any, names: set[str]) -> None:
    """Check that there is one run of each name, that each has its data, and none has it twice."""
    by_name = runs(client)
    assert names == by_name.keys()
    for name, pushed in by_name.items():
        assert pushed.info.status == "FINISHED"
        if name != "grid":
            history = client.get_metric_history(pushed.info.run_id, "val/log_loss")
            assert len(history) == len({point.step for point in history}) > 0
            assert len(client.list_artifacts(pushed.info.run_id, "model/artifacts")) == 2


EVERYTHING = {"v1.0.0", "probe", "grid", "grid-1", "grid-2"}


@pytest.mark.parametrize("artifacts", [1, 40])
def test_a_killed_push_leaves_no_run_half_or_doubled(
    clone: Path, client: Any, server: MlflowServer, artifacts: int
) -> None:
    """The next one goes on in the same runs."""
    before = objects(server)
    process = pushing(clone)
    while objects(server) < before + artifacts:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    runner(clone)(*PUSH)

    assert_whole(client, EVERYTHING)


def test_a_server_killed_during_a_push_is_said(
    clone: Path, client: Any, server: MlflowServer
) -> None:
    """With the command that goes on from there."""
    before = objects(server)
    process = subprocess.Popen(
        PUSH, cwd=clone, env=surroundings(clone), stderr=subprocess.PIPE, text=True
    )
    while objects(server) < before + 20:
        assert process.poll() is None
        time.sleep(0.02)
    server.kill()
    _, error = process.communicate(timeout=60)
    server.start()
    runner(clone)(*PUSH)

    assert process.returncode == 1
    assert re.match(
        r"error: the MLflow server at http\S+ does not do .* Then run this again", error
    )
    assert_whole(client, EVERYTHING)


def test_two_clones_push_at_once(
    clone: Path, client: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Neither knows of the other's lock: what both have written is there once."""
    other = copied(clone, tmp_path)
    processes = [pushing(folder) for folder in (clone, other)]
    assert [process.wait() for process in processes] == [0, 0]

    assert_whole(client, EVERYTHING)
    (version,) = client.search_model_versions(f"name='{request.node.name}'")
    assert version.run_id == runs(client)["v1.0.0"].info.run_id
    assert client.get_registered_model(request.node.name).aliases == {"prod": version.version}


def test_versions_and_stages_are_those_of_the_registry(
    clone: Path, client: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A promotion moves the alias of its stage; a person's alias stays."""
    folder, model = copied(clone, tmp_path), request.node.name
    run = runner(folder)
    run(*PUSH, "HEAD")
    client.set_registered_model_alias(model, "mine", "1")
    run("git", "commit", "-q", "--allow-empty", "-m", "again")
    run("git", "tag", "classifier@v1.1.0", "-m", "release")
    run("git", "tag", "classifier#prod#2", "-m", "to prod")
    assert "2 versions" in run(*PUSH, "HEAD")
    promoted = client.get_registered_model(model)
    versions = client.search_model_versions(f"name='{model}'")

    assert promoted.aliases == {"mine": "1", "prod": "2"}
    assert {v.version: v.tags["release"] for v in versions} == {"1": "v1.0.0", "2": "v1.1.0"}


LOAD = """
import json, sys
from pathlib import Path
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
photos = [Path(photo).read_bytes() for photo in json.loads(Path(sys.argv[2]).read_text())]
print(json.dumps(model.predict({"photo": photos}) + model.predict(model.input_example)))
"""


@pytest.mark.filterwarnings("ignore")  # MLflow's own, as it is imported
def test_the_model_answers_as_evaluate_says(
    clone: Path, client: Any, server: MlflowServer, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """By `mlflow.pyfunc.load_model`, and by `mlflow models serve`, without Meadow installed."""
    runner(clone)(*PUSH, "HEAD")
    name = request.node.name
    with (clone / "reports/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    photos = [clone / "data/raw" / row["path"] for row in rows]
    expected = [pytest.approx(float(row["p(gold)"]), abs=1e-6) for row in rows]

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@prod", dst_path=tmp_path))
    network = mlflow.onnx.load_model(str(folder))
    assert [node.name for node in network.graph.input] == ["pixels"]
    assert not list(folder.rglob("*.pkl"))

    programs = environment("mlflow-model", LOCK, folder / "requirements.txt")
    path = {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": ""}
    (tmp_path / "photos.json").write_text(json.dumps([str(photo) for photo in photos]))
    loaded = subprocess.run(
        [f"{programs}/python", "-c", LOAD, folder, tmp_path / "photos.json"], cwd=tmp_path,
        env={**os.environ, **path}, check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    *answered, example = json.loads(loaded.stdout)
    assert [answer["probabilities"]["gold"] for answer in answered] == expected
    assert [answer["label"] for answer in answered] == [row["predicted"] for row in rows]
    assert example["label"] in ("gold", "moss")

    port = free_port()
    command = [
        f"{programs}/mlflow", "models", "serve", f"--model-uri={folder}", f"--port={port}",
        "--env-manager=local",
    ]  # fmt: skip
    serving = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **path}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/ping"):
            assert serving.poll() is None
            time.sleep(0.2)
        records = [{"photo": base64.b64encode(photo.read_bytes()).decode()} for photo in photos]
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": records}).encode(),
            {"Content-Type": "application/json"},
        )
        served = json.load(urllib.request.urlopen(asked))["predictions"]
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
    assert [answer["probabilities"]["gold"] for answer in served] == expected


def test_a_browser_shows_runs_and_models(
    clone: Path, client: Any, server: MlflowServer, browser: Browser, request: pytest.FixtureRequest
) -> None:
    """As MLflow's own pages: the table of runs, a run's figures, the versions of the model."""
    printed = runner(clone)(*PUSH)
    pushed = runs(client)["v1.0.0"]
    size, refused = (1600, 1200), ("/ajax-api/2.0/mlflow/users/current",)  # has no users
    url = re.search(r"http\S+", printed)
    assert url
    with browser.visit(url[0], size=size, refused=refused, warned=True) as page:
        page.get_by_text("v1.0.0", exact=True).first.wait_for()
        page.locator('[col-id="attributes.`Run Name`"] button').first.click()  # shows its children
        for name in ("probe", "grid"):
            page.get_by_text(name, exact=True).first.wait_for()
    run_page = f"{url[0]}/{pushed.info.run_id}"
    with browser.visit(run_page, size=size, refused=refused, warned=True) as page:
        page.get_by_text("evaluate.log_loss").first.wait_for()
        page.get_by_text("first run").first.wait_for()
    models = f"{server.url}/#/models/{request.node.name}"
    with browser.visit(models, size=size, refused=refused, warned=True) as page:
        page.get_by_text("prod").first.wait_for()


def test_a_server_that_is_not_there_is_said(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within seconds, as is an address that is not set."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    unset = attempt(clone, *PUSH)
    dead = attempt(clone, *PUSH, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")

    assert unset.stderr.startswith("error: MLFLOW_TRACKING_URI is not set. `export")
    assert re.match("error: the MLflow server at http.* does the server run", dead.stderr)


def live_runs(client: Any) -> list[Any]:
    known = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    return list(client.search_runs([known.experiment_id])) if known else []


def test_steps_appear_while_a_training_runs(
    clone: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of its own, with what the training depends on; one that ends early was killed."""
    monkeypatch.chdir(clone)
    monkeypatch.setenv("MEADOW_MLFLOW", "1")
    with live.sending() as send:
        for step in range(3):
            send(metrics={"val/log_loss": 0.5 - step / 10}, step=step)
        while not (listed := live_runs(client)) or "val/log_loss" not in listed[0].data.metrics:
            time.sleep(0.1)
        (run,) = listed
        assert run.info.status == "RUNNING"
        assert run.data.params["train.finetune.epochs"] == "2"
        assert "train.probe.l2" not in run.data.params
    while live_runs(client)[0].info.status == "RUNNING":
        time.sleep(0.1)

    assert live_runs(client)[0].info.status == "KILLED"
    assert len(client.get_metric_history(run.info.run_id, "val/log_loss")) == 3


def test_a_push_goes_on_in_the_run_of_the_training(
    clone: Path, client: Any, tmp_path: Path
) -> None:
    """The outs are the same bytes as without MLflow, and there is one run in the end."""
    folder = copied(clone, tmp_path)
    run = runner(folder)
    run("dvc", "repro", "--force", "--single-item", "train", MEADOW_MLFLOW="1")
    while not live_runs(client) or live_runs(client)[0].info.status == "RUNNING":
        time.sleep(0.1)
    (trained,) = live_runs(client)
    assert run("git", "status", "--porcelain") == ""
    run(*PUSH, "HEAD")

    (pushed,) = live_runs(client)
    steps = [p.step for p in client.get_metric_history(pushed.info.run_id, "val/log_loss")]
    assert (pushed.info.run_id, pushed.info.run_name) == (trained.info.run_id, "v1.0.0")
    assert sorted(steps) == [0, 1]
    assert "evaluate.log_loss" in pushed.data.metrics
    assert client.list_artifacts(pushed.info.run_id, "model")


@pytest.mark.parametrize("server", ["dead", "silent"])
def test_a_training_needs_no_server(clone: Path, tmp_path: Path, server: str) -> None:
    """It is neither stopped nor kept waiting; a dead server is said once."""
    folder = copied(clone, tmp_path / "clone")
    run = runner(folder)
    with socket.socket() as listening, (tmp_path / "stderr").open("w") as errors:
        listening.bind(("127.0.0.1", 0))
        if server == "silent":
            listening.listen()
        url = "http://{}:{}".format(*listening.getsockname())
        command = [sys.executable, "-m", "meadow.train"]
        more = {"MEADOW_MLFLOW": "1", "MLFLOW_TRACKING_URI": url}
        subprocess.run(
            command, cwd=folder, env=surroundings(folder, **more), check=True, stderr=errors
        )
        if server == "silent":
            listening.settimeout(60)
            listening.accept()[0].close()  # the sender has asked, and waits for an answer for 10 s
        else:
            while not (tmp_path / "stderr").read_text():
                time.sleep(0.1)
            lines = (tmp_path / "stderr").read_text().splitlines()
            assert [line.split(":")[0] for line in lines if "MLFLOW" in line] == ["MEADOW_MLFLOW"]

    assert run("git", "status", "--porcelain") == ""
    assert run("dvc", "status", "train") == "Data and pipelines are up to date.\n"


def test_the_parameters_of_a_run_come_back(clone: Path, client: Any, tmp_path: Path) -> None:
    """By its name; what is no run, and a run of other code, change nothing."""
    folder = copied(clone, tmp_path)
    run = runner(folder)
    run(*PUSH, "grid-1")
    before = (folder / "params.yaml").read_text()
    (experiment_id,) = {each.info.experiment_id for each in live_runs(client)}
    other = client.create_run(experiment_id, run_name="other").info.run_id
    client.log_param(other, "train.depth", 3)
    unknown = attempt(folder, *meadow("mlflow", "pull", "grid-9"))
    foreign = attempt(folder, *meadow("mlflow", "pull", other))
    assert (unknown.returncode, foreign.returncode) == (1, 1)
    assert "is no run of" in unknown.stderr
    assert "Did you mean grid-1" in unknown.stderr
    assert "train.depth is not a parameter" in foreign.stderr
    assert (folder / "params.yaml").read_text() == before

    printed = run(*meadow("mlflow", "pull", "grid-1"))
    assert "+    epochs: 6" in printed
    assert "Next: `dvc exp run" in printed
