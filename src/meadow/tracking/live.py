"""Send the steps of a training to an MLflow server while it runs; see `training/live.py`.

Reads lines of JSON from standard input: `{"params": ...}`, then `{"metrics": ..., "step": n}`, and
last `{"model": SHA-256}`. By the model `meadow mlflow push` finds the run again, and makes it
that of the commit. Where the input ends without one, the training was killed or failed.
"""

import json
import os
import queue
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from meadow.errors import MeadowError
from meadow.storage import dvc_git
from meadow.tracking.server import MODEL, Server, as_text, errors

MOST = 100  # steps at once
Lines = queue.SimpleQueue[dict[str, Any] | None]


def main() -> None:
    """Send until the input ends; at the first error say so, and leave."""
    # Whoever reads what the training prints waits for this process too.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    lines: Lines = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    try:
        server = Server.connect()
        with errors():
            _send(server, lines)
    except MeadowError as error:
        print(f"MEADOW_MLFLOW: {error} The training goes on without it.", file=sys.stderr)


def _read(lines: Lines) -> None:
    for line in sys.stdin:
        lines.put(json.loads(line))
    lines.put(None)


def _send(server: Server, lines: Lines) -> None:
    from mlflow.entities import Metric, Param, RunTag

    first = lines.get()
    if first is None:
        return
    tags = {"mlflow.source.name": "dvc repro"}
    with suppress(MeadowError):  # a repository without a commit
        tags["mlflow.source.git.commit"] = dvc_git.git("rev-parse", "HEAD")
    name = os.environ.get("DVC_EXP_NAME", "training")  # DVC sets it in experiments
    run = server.client.create_run(server.experiment, tags=tags, run_name=name).info.run_id
    params = [Param(key, as_text(value)) for key, value in first["params"].items()]
    server.client.log_batch(run, params=params)
    ended = trained = False
    while not ended:
        batch = [lines.get()]
        while len(batch) < MOST and not lines.empty():
            batch.append(lines.get())
        ended = batch[-1] is None
        messages = list(filter(None, batch))
        now = int(1000 * time.time())
        metrics = [
            Metric(key, value, now, message["step"])
            for message in messages
            for key, value in message.get("metrics", {}).items()
        ]
        models = [RunTag(MODEL, message["model"]) for message in messages if "model" in message]
        server.client.log_batch(run, metrics, tags=models)
        trained = trained or bool(models)
    server.client.set_terminated(run, "FINISHED" if trained else "KILLED")
