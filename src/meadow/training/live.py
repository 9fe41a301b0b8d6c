"""Steps of a training as they happen, for an MLflow server, where MEADOW_MLFLOW asks for them.

A process of its own sends them: whatever a server does, it neither stops nor slows the training.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from meadow import params

# Not imported, and no dependency of the stage: no out depends on it.
SENDER = "from meadow.tracking.live import main; main()"
SWITCH = "MEADOW_MLFLOW"


@contextmanager
def sending() -> Iterator[Callable[..., None]]:
    """Start the sender if MEADOW_MLFLOW is set and not 0; it ends some time after the block.

    Yields:
        What sends `metrics` of a `step`, or at the end the SHA-256 of the `model`.

    """
    if os.environ.get(SWITCH, "0") == "0":
        yield lambda **_: None
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # In a session of its own: Ctrl-C ends the training, and the sender says so. Nobody waits for
    # it, which subprocess would warn of.
    command = [sys.executable, "-c", SENDER]
    stdin = [(os.POSIX_SPAWN_DUP2, reader, 0)]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=stdin, setsid=True)
    os.close(reader)

    def send(**message: Any) -> None:
        with suppress(OSError):  # the sender has ended, or is far behind
            os.write(writer, json.dumps(message).encode() + b"\n")

    try:
        send(params=_parameters())
        yield send
    finally:
        os.close(writer)


def _parameters() -> dict[str, Any]:
    """Return what the training depends on, by dotted key, as params.yaml has it."""
    values = params.read()
    train = values["train"]
    sections = {
        "prepare.": values["prepare"],
        "train.": {key: value for key, value in train.items() if not isinstance(value, dict)},
        f"train.{train['method']}.": train[train["method"]],
    }
    return {
        before + key: value
        for before, section in sections.items()
        for key, value in section.items()
    }
