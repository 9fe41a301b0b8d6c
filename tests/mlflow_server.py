"""A real MLflow server that tests may kill: runs in PostgreSQL, artifacts in MinIO."""

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

from clones import ROOT
from databases import Postgres
from environments import environment
from servers import KEY, SECRET, Server

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent

BUCKET = "mlflow"
LOCK = ROOT / "deploy/mlflow/requirements.lock.txt"


class MlflowServer:
    """MLflow on a free port of the loopback.

    Attributes:
        url: of the server.
        store: the MinIO server of its artifacts.
        keys: what a program needs in its environment to read there by itself.

    """

    def __init__(self, folder: Path, store: Server) -> None:
        self.programs = environment("mlflow", LOCK)
        self.store = store
        store.client().create_bucket(Bucket=BUCKET)
        self.database = Postgres(folder / "postgres")
        self.runs = self.database.make("mlflow")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "mlflow.log"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        command = [
            f"{self.programs}/mlflow", "server", "--host=127.0.0.1", f"--port={self.port}",
            "--workers=1", f"--backend-store-uri={self.runs}", "--serve-artifacts",
            f"--artifacts-destination=s3://{BUCKET}",
        ]  # fmt: skip
        environment = {
            **os.environ,
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": "",
            "MLFLOW_S3_ENDPOINT_URL": self.store.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.log.parent, env=environment, stdout=log, stderr=log,
                start_new_session=True, preexec_fn=end_with_parent,
            )  # fmt: skip
        end = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"{self.url}/health")
                return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()[-3000:]
                assert time.monotonic() < end
                time.sleep(0.2)

    def kill(self) -> None:
        """End it at once, with its worker."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End it and its database."""
        self.kill()
        self.database.stop()
