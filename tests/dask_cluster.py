"""A Dask scheduler and workers on the loopback, which tests may stop and kill."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools import need

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent

HERE = Path(__file__).parent


class DaskCluster:
    """Processes of `dask scheduler` and `dask worker`; what they say is in `folder`.

    A context manager that ends them.
    """

    def __init__(
        self, folder: Path, *, protocol: str = "tcp", environment: Mapping[str, str] | None = None
    ) -> None:
        need("Dask")
        self.folder = folder
        self.port = free_port()
        self.address = f"{protocol}://127.0.0.1:{self.port}"
        self.environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(HERE)]),
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "2s",
            **(environment or {}),
        }
        self.workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "DaskCluster":
        self.folder.mkdir(exist_ok=True)
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()

    def start_scheduler(self) -> None:
        """Start it, or start it again."""
        protocol = self.address.partition(":")[0]
        self.scheduler = self._start(
            "scheduler", f"--protocol={protocol}", "--host=127.0.0.1", f"--port={self.port}"
        )

    def start_worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """Start a worker of one thread."""
        process = self._start(
            "worker", self.address, "--host=127.0.0.1", "--nthreads=1", "--no-nanny", **environment
        )
        self.workers.append(process)
        return process

    def _start(self, kind: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        name = f"{kind}{time.monotonic_ns()}"
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--no-dashboard"],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
            )
