"""A Dask scheduler and workers on the loopback, which tests may stop and kill."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tools import need

from meadow.pipeline.ports import free_port
from meadow.serving.parent import kill_with_parent

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
        self.logs: dict[int, Path] = {}

    def __enter__(self) -> "DaskCluster":
        self.folder.mkdir(exist_ok=True)
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait()

    def start_scheduler(self) -> None:
        """Start it, or start it again, and wait until it listens."""
        protocol = self.address.partition(":")[0]
        self.scheduler = self._start(
            "scheduler", f"--protocol={protocol}", "--host=127.0.0.1", f"--port={self.port}"
        )
        self._wait(self.scheduler, "Scheduler at:")

    def start_workers(self, count: int, **environment: str) -> None:
        """Start workers of one thread, and wait until the scheduler knows them."""
        options = ("--host=127.0.0.1", "--nthreads=1", "--no-nanny")
        started = len(self.workers)
        for _ in range(count):
            self.workers.append(self._start("worker", self.address, *options, **environment))
        for worker in self.workers[started:]:
            self._wait(worker, "Registered to")

    def _wait(self, process: subprocess.Popen[bytes], line: str) -> None:
        end = time.monotonic() + 60
        while line not in (log := self.logs[process.pid].read_text()):
            assert process.poll() is None, log
            assert time.monotonic() < end, log
            time.sleep(0.05)

    def _start(self, kind: str, *options: str, **environment: str) -> subprocess.Popen[bytes]:
        file = self.folder / f"{kind}{time.monotonic_ns()}.log"
        with file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.dask_{kind}", *options, "--no-dashboard"],
                cwd=self.folder,
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                preexec_fn=kill_with_parent,
            )
        self.logs[process.pid] = file
        return process
