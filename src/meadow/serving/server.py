"""Start `bentoml serve` and stop it: for package's comparison, the demo and the tests."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from meadow.errors import MeadowError
from meadow.pipeline.ports import answers, free_port
from meadow.serving.parent import guarded
from meadow.serving.settings import without_settings

BENTO = Path("models/bento")
READY_WITHIN = 60  # seconds; 3 are usual
STOP_WITHIN = 10


@contextmanager
def serving(target: str | Path, **settings: str) -> Iterator[str]:
    """Serve a Bento's folder, or a service by its import name, on a free port of the loopback.

    Args:
        target: what `bentoml serve` gets. A path is made absolute: BentoML 1.4.39 looks for a
            relative one below itself.
        settings: of the service, such as `MEADOW_QUEUE="2"`; the shell's do not count, nor those of
            BentoML.

    Yields:
        The URL, when it answers.

    Raises:
        MeadowError: it ended or was not ready in time; the end of its log is in the message.

    """
    with tempfile.TemporaryDirectory() as home, Path(home, "log").open("w+b") as log:
        port = str(free_port())
        name = str(target.resolve()) if isinstance(target, Path) else target
        # A home of its own: BentoML's is global, and a start wipes the metrics of another.
        bentoml = {"BENTOML_HOME": home, "BENTOML_DO_NOT_TRACK": "True"}
        # Compiled modules beside the Bento's own hold time stamps, and package would keep them.
        bentoml["PYTHONDONTWRITEBYTECODE"] = "1"
        server = subprocess.Popen(
            [sys.executable, "-m", "bentoml", "serve", name, "--host", "127.0.0.1", "--port", port],
            env=without_settings(os.environ) | bentoml | settings,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with guarded(server):
            try:
                url = f"http://127.0.0.1:{port}"
                _wait(server, f"{url}/readyz", Path(home, "log"))
                yield url
            finally:
                server.terminate()
                try:
                    server.wait(STOP_WITHIN)
                except subprocess.TimeoutExpired:
                    workers = psutil.Process(server.pid).children()
                    for process in (server, *workers):  # it would start others in their place
                        process.kill()
                    server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + READY_WITHIN
    while time.monotonic() < end:
        if answers(url):
            return
        # BentoML starts a worker that failed again and again
        if server.poll() is not None or b"startup failed" in log.read_bytes():
            break
        time.sleep(0.05)
    tail = log.read_text("utf-8", "replace")[-2000:]
    raise MeadowError(f"the service did not start:\n{tail}")
