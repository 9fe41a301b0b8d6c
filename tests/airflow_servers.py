"""Airflow as it is deployed: PostgreSQL, Redis, four parts of its own; each may be killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
from clones import ROOT
from databases import Postgres
from environments import environment
from servers import KEY, SECRET
from tools import need

from meadow.pipeline.ports import answers, free_port
from meadow.serving.parent import end_with_parent

LOCK = ROOT / "deploy/airflow/requirements.lock.txt"
TOKEN = "of-a-webhook-that-ends-with-the-test"  # noqa: S105
READY_WITHIN = 180  # seconds
SILENT = 30  # seconds without a sign of life after which a task is taken for dead
ENDED = ("success", "failed")


class Airflow:
    """Airflow on free ports of the loopback.

    Attributes:
        folder: of its logs and settings.
        url: of its API.
        database: its PostgreSQL server.

    """

    def __init__(self, folder: Path, project: Path, **environment_of_tasks: str) -> None:
        """Start all but the workers.

        Args:
            folder: for logs and data.
            project: the clone of Meadow whose DAGs are read.
            environment_of_tasks: for all workers.

        """
        need("PostgreSQL", "Redis")
        self.programs = environment("airflow", LOCK)
        self.folder = folder
        self.database = Postgres(folder / "postgres")
        redis, api = free_port(), free_port()
        self.url = f"http://127.0.0.1:{api}"
        runs = self.database.make("airflow")
        settings = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__DAGS_FOLDER": f"{project}/deploy/airflow/dags",
            "CORE__PLUGINS_FOLDER": f"{project}/deploy/airflow/plugins",
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": runs,
            "CELERY__BROKER_URL": f"redis://127.0.0.1:{redis}/0",
            "CELERY__RESULT_BACKEND": f"db+{runs}",
            "API_AUTH__JWT_SECRET": "of-an-airflow-that-ends-with-the-test",
            "API__HOST": "127.0.0.1",
            "API__PORT": str(api),
            "API__BASE_URL": self.url,
            "API__WORKERS": "1",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(SILENT),
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
            "SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        # without the machine's proxies
        self.environment = {
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            "AIRFLOW_HOME": str(folder),
            "PYTHONPATH": "",
            "PYTHONWARNINGS": "ignore",
            "MEADOW_WEBHOOK_TOKEN": TOKEN,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            **environment_of_tasks,
        }
        self.commands: dict[str, tuple[list[str], dict[str, str]]] = {}
        self.processes: dict[str, psutil.Popen] = {}
        try:
            self.start(
                "redis", ["redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", ""]
            )
            self._run("db", "migrate")
            for part in ("api-server", "scheduler", "dag-processor"):
                self.start(part, [f"{self.programs}/airflow", part])
            self._until(lambda: answers(f"{self.url}/api/v2/version"), "API")
            self._until(lambda: self.ask("GET", "dags")["total_entries"] == 2, "DAGs")
        except BaseException:
            self.close()
            raise

    def worker(self, name: str, queues: str = "default", **environment: str) -> None:
        """Start a worker, with an environment of its own beside that of all."""
        command = [
            "celery", "worker", "--concurrency=2", "--skip-serve-logs", f"--queues={queues}",
            f"--celery-hostname={name}@localhost", f"--pid={self.folder}/{name}.pid",
        ]  # fmt: skip
        self.start(name, [f"{self.programs}/airflow", *command], **environment)

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the REST API."""
        token = httpx.get(f"{self.url}/auth/token", timeout=60).json()["access_token"]
        answer = httpx.request(
            method, f"{self.url}/api/v2/{path}", json=body, timeout=60,
            headers={"authorization": f"Bearer {token}"},
        )  # fmt: skip
        assert answer.is_success, answer.text
        return answer.json()

    def wait(self, dag: str, count: int, within: float = 900) -> list[dict[str, Any]]:
        """Wait until so many runs of a DAG have ended; return them, the latest last."""
        end = time.monotonic() + within
        while True:
            self.revive()
            runs = self.ask("GET", f"dags/{dag}/dagRuns?order_by=run_after")["dag_runs"]
            if len(runs) >= count and all(run["state"] in ENDED for run in runs):
                return list(runs)
            assert time.monotonic() < end, runs
            time.sleep(0.5)

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Return what became of the tasks of a run, by name."""
        listed = self.ask("GET", f"dags/{dag}/dagRuns/{run}/taskInstances")["task_instances"]
        return {task["task_id"]: task for task in listed}

    def log(self, dag: str, run: str, task: str) -> str:
        """Return what a task printed, in all its tries."""
        files = sorted(self.folder.glob(f"logs/dag_id={dag}/run_id={run}/task_id={task}/*.log"))
        return "\n".join(file.read_text() for file in files)

    def revive(self) -> None:
        """Start again what has ended by itself, as systemd and Compose do."""
        for name, process in list(self.processes.items()):
            if process.poll() is not None:
                command, environment = self.commands[name]
                self.start(name, command, **environment)

    def kill(self, name: str) -> None:
        """End a part and all that it started at once, as a power cut would."""
        process = self.processes.pop(name)
        with suppress(psutil.NoSuchProcess):
            process.suspend()
            for one in [*process.children(recursive=True), process]:
                with suppress(psutil.NoSuchProcess):
                    one.kill()
        process.wait()

    def close(self) -> None:
        """End all of it."""
        for name in list(self.processes):
            self.kill(name)
        self.database.stop()

    def start(self, name: str, command: list[str], **environment: str) -> None:
        """Start a program beside Airflow's, which ends with them."""
        self.commands[name] = command, environment
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = psutil.Popen(
                command, cwd=self.folder, env={**self.environment, **environment},
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )  # fmt: skip

    def _run(self, *command: str) -> None:
        with (self.folder / "commands.log").open("ab") as log:
            subprocess.run(
                [f"{self.programs}/airflow", *command], cwd=self.folder, env=self.environment,
                check=True, stdout=log, stderr=log,
            )  # fmt: skip

    def _until(self, ready: Callable[[], object], what: str) -> None:
        end = time.monotonic() + READY_WITHIN
        while not ready():
            ended = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not ended, (self.folder / f"{ended[0]}.log").read_text()[-3000:]
            assert time.monotonic() < end, f"{what} did not come"
            time.sleep(0.3)
