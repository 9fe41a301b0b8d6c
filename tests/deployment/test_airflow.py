"""The DAGs of deploy/airflow, as Airflow itself reads them."""

import json
import subprocess
from pathlib import Path

import pytest
from clones import ROOT
from environments import environment

FOLDER = ROOT / "deploy/airflow"
LOCK = FOLDER / "requirements.lock.txt"
GRAPH = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
assert not bag.import_errors, bag.import_errors
print(json.dumps({name: {
    task.task_id: [sorted(task.upstream_task_ids), task.retries, bool(task.execution_timeout)]
    for task in dag.tasks} for name, dag in bag.dags.items()}))
"""


@pytest.mark.slow
def test_the_stages_are_those_of_the_pipeline(tmp_path: Path) -> None:
    """Each after all whose outs it reads; each task but the alert has a limit, all are retried."""
    done = subprocess.run(
        [environment("airflow", LOCK) / "python", "-c", GRAPH, FOLDER / "dags"],
        env={"AIRFLOW_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    dags = json.loads(done.stdout.splitlines()[-1])

    assert dags.keys() == {"retrain", "retrain_stages"}
    chain = ["add", "repro", "gate", "share", "candidate"]
    assert [dags["retrain"][task][0] for task in chain] == [
        [],
        ["add"],
        ["repro"],
        ["gate"],
        ["share"],
    ]
    by_stage = {task: before for task, (before, _, _) in dags["retrain_stages"].items()}
    assert by_stage["prepare"] == ["add"]
    assert by_stage["train"] == ["prepare"]
    assert by_stage["evaluate"] == ["prepare", "train"]
    assert by_stage["report"] == ["evaluate", "prepare", "train"]
    assert by_stage["package"] == ["evaluate", "report", "train"]
    assert by_stage["gate"] == ["package"]
    for tasks in dags.values():
        assert tasks["alert"][0] == sorted(tasks.keys() - {"alert"})
        for name, (_, retries, limited) in tasks.items():
            assert retries == 3
            assert limited == (name != "alert")
