"""From photos in the inbox to a release candidate, by a real Airflow and through faults."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from airflow_servers import TOKEN, Airflow
from clones import ROOT, Run, copied, runner
from servers import BUCKET, Server, meadow, point
from tools import need
from toys import TINTS, encoded, photo

from meadow.pipeline.ports import free_port

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent  # of Meadow's programs
PAGE = (ROOT / "docs/retraining.md").read_text()
BY_HAND = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)[0]
Work = Callable[..., None]
STRICT = ("min_accuracy: 0.0", "min_accuracy: 1.0")


@pytest.fixture(scope="module")
def project(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone whose model the gate passes, with stages on queues of their own."""
    folder = copied(first_run, tmp_path_factory.mktemp("project"))
    replace(folder / "params.yaml", ("y: 0.8", "y: 0.0"), ("loss: 0.5", "loss: 9.9"))
    stages = [f"  {stage}:\n" for stage in ("train", "report")]
    replace(
        folder / "dvc.yaml", *((line, f"{line}    meta: {{queue: other}}\n") for line in stages)
    )
    replace(folder / "deploy/airflow/dags/retrain.py", ("seconds=30", "seconds=1"))
    run = runner(folder)
    run("dvc", "repro")
    run("git", "commit", "-qam", "A model that the gate passes")
    return folder


def replace(path: Path, *pairs: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


@pytest.fixture(scope="module")
def origin(
    project: Path, store: Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Run]:
    """Return a function that makes a repository with a remote and an inbox of its own."""

    def make(name: str) -> Run:
        clone = copied(project, tmp_path_factory.mktemp("origins") / name)
        run = runner(clone)
        run("dvc", "remote", "modify", "minio", "url", f"s3://{BUCKET}/{name}")
        run("dvc", "remote", "modify", "minio", "endpointurl", store.endpoint)
        point(clone, store.endpoint)
        run("git", "commit", "-qam", "A remote of its own")
        run("git", "init", "-q", "--bare", "-b", "main", f"{clone}.git")
        run("git", "remote", "add", "origin", f"{clone}.git")
        run(*meadow("share"))
        run("git", "push", "-q", "-u", "origin", "main")
        for number in range(100, 120):
            label, tint = (("gold", TINTS[0]), ("moss", TINTS[1]))[number % 2]
            body = encoded(photo(number, tint), quality=92)
            key = f"{name}/inbox/{label}/{number}.jpg"
            store.client().put_object(Bucket=BUCKET, Key=key, Body=body)
        return run

    return make


@pytest.fixture(scope="module")
def airflow(
    project: Path, alertmanager: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Airflow]:
    """Return an Airflow without workers, and an Alertmanager that calls it."""
    need("Prometheus")
    folder = tmp_path_factory.mktemp("airflow")
    airflow = Airflow(folder, project, MEADOW_BIN=str(BIN), MEADOW_ALERTMANAGER=alertmanager)
    try:
        route, receiver = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
        text = (ROOT / "deploy/monitoring/alertmanager.yml").read_text()
        text = text.replace("  routes:\n", f"  routes:\n{route}") + receiver
        (folder / "token").write_text(TOKEN)
        text = text.replace("/etc/meadow/webhook-token", f"{folder}/token")
        (folder / "alertmanager.yml").write_text(text.replace("http://127.0.0.1:8080", airflow.url))
        airflow.start(
            "alertmanager",
            ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml",
             f"--storage.path={folder}/alertmanager", "--cluster.listen-address=",
             f"--web.listen-address={alertmanager.removeprefix('http://')}"],
        )  # fmt: skip
        yield airflow
    finally:
        airflow.close()


@pytest.fixture(scope="module")
def alertmanager() -> str:
    """Return its URL."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def store(airflow: Airflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a MinIO that calls Airflow."""
    settings = dict(re.findall(r'(MINIO_NOTIFY_\w+)=("[^"]+"|\S+)', PAGE))
    calls = {name: value.strip('"').replace("$TOKEN", TOKEN) for name, value in settings.items()}
    calls = {name: v.replace("http://127.0.0.1:8080", airflow.url) for name, v in calls.items()}
    server = Server(tmp_path_factory.mktemp("minio"), **calls)
    server.client().create_bucket(Bucket=BUCKET)
    yield server
    server.kill()


def candidate(run: Run) -> str:
    """Return dvc.lock of the only candidate that there is."""
    run("git", "fetch", "-q", "--tags", "origin")
    assert run("git", "tag", "--list", "classifier@*").split() == ["classifier@v1.0.0-rc.1"]
    return run("git", "show", "classifier@v1.0.0-rc.1:dvc.lock")


@pytest.fixture
def work(airflow: Airflow, tmp_path: Path) -> Iterator[Work]:
    """Return a function that starts a worker for an origin, with a home and a clone of its own.

    Workers end with the test, and no DAG is started after it.
    """
    names = []

    def start(run: Run, name: str, folder: str, queues: str = "default") -> None:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        airflow.worker(
            name, queues,
            HOME=str(home),
            MEADOW_CACHE=str(home / "cache"),
            MEADOW_GIT=run("git", "remote", "get-url", "origin").strip(),
            MEADOW_WORK=str(home / "work"),
        )  # fmt: skip
        names.append(name)

    yield start
    for dag in ("retrain", "retrain_stages"):
        airflow.ask("PATCH", f"dags/{dag}", {"is_paused": True})
    for name in airflow.processes.keys() & {*names}:
        airflow.kill(name)


@pytest.fixture(scope="module")
def person(
    origin: Callable[[str], Run], store: Server, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """Return dvc.lock as a person gets it who gives the commands of the page."""
    run = origin("person")
    run("sh", "-ec", BY_HAND)
    return candidate(run)


def call(airflow: Airflow, name: str, token: str) -> int:
    """Call the webhook; return the status of the answer."""
    headers = {"authorization": token}
    return httpx.post(f"{airflow.url}/meadow/{name}", json={}, headers=headers).status_code


def share_of_airflow(run: dict[str, Any], tasks: dict[str, dict[str, Any]]) -> float:
    """Return the seconds of a run in which none of its tasks ran."""
    first, last = (datetime.fromisoformat(run[end]) for end in ("run_after", "end_date"))
    ran = sum(task["duration"] or 0 for task in tasks.values())
    return (last - first).total_seconds() - ran


def test_photos_in_the_inbox_become_a_candidate(
    airflow: Airflow, origin: Callable[[str], Run], person: str, work: Work, store: Server,
    alertmanager: str,
) -> None:  # fmt: skip
    """MinIO's call starts it; two runs at once come one after the other, and change nothing.

    Then Alertmanager's call, with the same photos under a gate that refuses: an alert, and no
    candidate.
    """
    run = origin("first")
    work(run, "first", "first")
    airflow.ask("PATCH", "dags/retrain", {"is_paused": False})
    assert call(airflow, "drift", "Bearer other") == call(airflow, "drift", "") == 401
    assert call(airflow, "other", f"Bearer {TOKEN}") == 422
    (rule,) = re.findall(r"mc event add \S+ (\S+) .* --suffix (\S+)", PAGE)
    filters = [{"Name": "prefix", "Value": "first/inbox/"}, {"Name": "suffix", "Value": rule[1]}]
    store.client().put_bucket_notification_configuration(
        Bucket=BUCKET,
        NotificationConfiguration={"QueueConfigurations": [{
            "QueueArn": rule[0], "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": filters}},
        }]},
    )  # fmt: skip
    store.client().put_object(Bucket=BUCKET, Key="first/inbox/ready.txt")
    (by_asset,) = airflow.wait("retrain", 1)
    steps = airflow.tasks("retrain", by_asset["dag_run_id"])
    log = airflow.log("retrain", by_asset["dag_run_id"], "*")

    assert by_asset["run_type"] == "asset_triggered"
    assert by_asset["state"] == "success", log
    assert {task["state"] for name, task in steps.items() if name != "alert"} == {"success"}
    assert steps["alert"]["state"] == "skipped"
    assert candidate(run) == person
    tip = run("git", "rev-parse", "classifier@v1.0.0-rc.1^{}")
    assert run("git", "ls-remote", "origin", "refs/heads/retrain/*").split()[0] == tip.strip()
    assert "### <code>workspace</code> against" in run(
        "git", "show", "-s", "--format=%B", tip.strip()
    )
    print(share_of_airflow(by_asset, steps))

    refs = run("git", "ls-remote", "origin")
    for _ in range(2):
        airflow.ask("POST", "dags/retrain/dagRuns", {"logical_date": None})
    *_, one, two = sorted(airflow.wait("retrain", 3), key=lambda run: run["start_date"])
    assert one["end_date"] <= two["start_date"]
    for again in (one, two):
        states = airflow.tasks("retrain", again["dag_run_id"])
        assert {task["state"] for task in states.values()} == {"skipped"}
    assert run("git", "ls-remote", "origin") == refs

    replace(Path(run("git", "rev-parse", "--show-toplevel").strip(), "params.yaml"), STRICT)
    run("git", "commit", "-qam", "A gate that refuses")
    run("git", "push", "-q")
    drift = ["alert", "add", "alertname=MeadowDrift", "severity=ticket"]
    subprocess.run(["amtool", f"--alertmanager.url={alertmanager}", *drift], check=True)
    refused = airflow.wait("retrain", 4)[-1]
    steps = airflow.tasks("retrain", refused["dag_run_id"])
    assert refused["state"] == "failed"
    assert {name: steps[name]["state"] for name in ("repro", "gate", "share", "alert")} == {
        "repro": "success", "gate": "failed", "share": "upstream_failed", "alert": "failed"
    }  # fmt: skip
    assert steps["gate"]["try_number"] == steps["alert"]["try_number"] == 1
    assert "failed: the test accuracy" in airflow.log("retrain", refused["dag_run_id"], "gate")
    told = httpx.get(f"{alertmanager}/api/v2/alerts").json()
    assert "MeadowRetraining" in [alert["labels"]["alertname"] for alert in told]
    assert candidate(run) == person


def in_the_middle_of(stage: str, folder: Path) -> Callable[[], bool]:
    """Return whether a stage runs below a folder."""

    def runs() -> bool:
        for process in psutil.process_iter(["cmdline", "cwd"]):
            here = str(process.info["cwd"] or "").startswith(str(folder))
            if here and f"meadow.{stage}" in (process.info["cmdline"] or []):
                return True
        return False

    return runs


def until(happens: Callable[[], bool], within: float = 600) -> None:
    end = time.monotonic() + within
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_dead_worker_and_a_new_start_of_the_database_change_no_byte(
    airflow: Airflow, origin: Callable[[str], Run], person: str, work: Work, tmp_path: Path
) -> None:
    """The worker and all below it are killed while it trains; then PostgreSQL is restarted."""
    run = origin("faults")
    work(run, "doomed", "home")
    airflow.ask("PATCH", "dags/retrain", {"is_paused": False})
    airflow.ask("POST", "dags/retrain/dagRuns", {"logical_date": None})
    until(in_the_middle_of("train", tmp_path))
    airflow.kill("doomed")
    assert not in_the_middle_of("train", tmp_path)()
    airflow.database.stop()
    airflow.database.start()
    work(run, "heir", "home")
    latest = airflow.wait("retrain", 1)[-1]
    repro = airflow.tasks("retrain", latest["dag_run_id"])["repro"]

    assert latest["state"] == "success", airflow.log("retrain", latest["dag_run_id"], "*")
    assert repro["try_number"] > 1
    assert candidate(run) == person


def test_stages_travel_between_workers_that_share_no_disk(
    airflow: Airflow, origin: Callable[[str], Run], person: str, work: Work, tmp_path: Path
) -> None:
    """Each worker runs the stages of its queue alone; the others' outs come by the remote."""
    run = origin("stages")
    work(run, "one", "one")
    work(run, "two", "two", queues="other")
    airflow.ask("PATCH", "dags/retrain_stages", {"is_paused": False})
    airflow.ask("POST", "dags/retrain_stages/dagRuns", {"logical_date": None})
    (only,) = airflow.wait("retrain_stages", 1)
    steps = airflow.tasks("retrain_stages", only["dag_run_id"])
    ran = {
        name: re.findall(
            r"Running stage '(\w+)'", airflow.log("retrain_stages", only["dag_run_id"], name)
        )
        for name in steps
    }

    assert only["state"] == "success", airflow.log("retrain_stages", only["dag_run_id"], "*")
    assert {name for name, stages in ran.items() if stages == [name]} == {
        "prepare", "train", "evaluate", "report", "package"
    }  # fmt: skip
    assert not any(stages for name, stages in ran.items() if stages != [name])
    for folder in ("one", "two"):
        assert (tmp_path / folder / "work/clone/.dvc/cache/runs").is_dir()
    assert candidate(run) == person
