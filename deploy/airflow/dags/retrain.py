"""New photos in the inbox become a release candidate: docs/retraining.md.

Each task is a step that a person could take, `deploy/airflow/step`. `retrain` runs the pipeline as
one of them; `retrain_stages` shows each stage, tries it again and places it by itself.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, TaskGroup
from airflow.sdk.exceptions import AirflowFailException

STEP = Path(__file__).parents[1] / "step"
PIPELINE = Path(__file__).parents[3] / "dvc.yaml"
BRANCH = "{{ ti.xcom_pull('add') }}"
URL = "{{ ti.log_url.split('/tasks/')[0] }}"
ALERT = f"""curl --fail --silent --show-error --header 'content-type: application/json' --data '[{{
"labels": {{"alertname": "MeadowRetraining", "severity": "ticket", "dag": "{{{{ dag.dag_id }}}}"}},
"annotations": {{"summary": "{{{{ run_id }}}} failed", "runbook": "docs/retraining.md#it-failed"}},
"generatorURL": "{URL}"}}]' "${{MEADOW_ALERTMANAGER:-http://127.0.0.1:9093}}/api/v2/alerts" """


def step(
    name: str, *arguments: str, step: str = "", hours: int = 1, **options: Any
) -> BashOperator:
    """Return a task that takes a step; its last line of output is what later tasks read."""
    command = " ".join([str(STEP), step or name, *(arguments or [BRANCH])])
    limit = timedelta(hours=hours)
    return BashOperator(task_id=name, bash_command=command, execution_timeout=limit, **options)


def judge(verdict: str) -> None:
    """Fail for good where the gate refused: it would refuse again."""
    if verdict != "passed":
        raise AirflowFailException("The gate refused the model; the lines above say why.")


def fail(_: str) -> None:
    """Fail for good: the run's state is that of its last task, Airflow's pattern of a watcher."""
    raise AirflowFailException("A task has failed, and Alertmanager knows; so the run has failed.")


def add_stages() -> None:
    """Make a task of each stage of dvc.yaml, after those whose outs it reads."""
    stages = yaml.safe_load(PIPELINE.read_text("utf-8"))["stages"]
    made_by: dict[Path, str] = {}
    before: dict[str, list[str]] = {}
    tasks: dict[str, BashOperator] = {}
    for name, stage in stages.items():  # in dvc.yaml a stage stands after those that it reads from
        folders = [path for dep in stage["deps"] for path in (Path(dep), *Path(dep).parents)]
        read = {made_by[folder] for folder in folders if folder in made_by}
        before[name] = [
            one for one in before if any(one in (other, *before[other]) for other in read)
        ]
        items = [*before[name], name]  # on a worker those before come out of the run cache
        queue = stage.get("meta", {}).get("queue", "default")
        tasks[name] = step(name, BRANCH, *items, step="repro", hours=12, queue=queue)
        [tasks[one] for one in sorted(read)] >> tasks[name]
        for out in [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]:
            made_by[Path(out if isinstance(out, str) else next(iter(out)))] = name


def retrain(name: str, *, by_stage: bool) -> None:
    """Define a DAG."""
    with DAG(
        name,
        schedule=AssetOrTimeSchedule(
            timetable=CronTriggerTimetable("0 3 * * *", timezone="UTC"),
            assets=Asset("inbox") | Asset("drift"),  # plugins/webhook.py
        ),
        max_active_runs=1,
        dagrun_timeout=timedelta(days=2),
        default_args={"retries": 3, "retry_delay": timedelta(seconds=30)},
        doc_md=__doc__,
    ) as dag:
        add = step("add", "main")
        with TaskGroup("pipeline", prefix_group_id=False) as pipeline:
            add_stages() if by_stage else step("repro", hours=12)
        gate = step("gate", output_processor=judge)
        add >> pipeline >> gate >> step("share") >> step("candidate")
        dag.tasks >> BashOperator(
            task_id="alert", bash_command=ALERT, trigger_rule="one_failed", output_processor=fail
        )


retrain("retrain", by_stage=False)
retrain("retrain_stages", by_stage=True)
