"""The cluster of the current context, by kubectl."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from meadow.errors import MeadowError
from meadow.storage import go_tools

PORT = 3000  # of a pod
FORWARDED = re.compile(r"Forwarding from (127\.0\.0\.1:\d+)")


def kubectl(*arguments: str, text: str = "", allowed: int = 0) -> str:
    """Run kubectl and return what it prints.

    Args:
        arguments: of kubectl.
        text: its standard input.
        allowed: the highest exit status that is no failure.

    Raises:
        MeadowError: it failed; what it said is in the message.

    """
    done = subprocess.run(
        [_program(), *arguments], input=text, check=False, capture_output=True, text=True
    )
    if done.returncode > allowed:
        raise MeadowError(f"`kubectl {' '.join(arguments)}` failed:\n{done.stderr.strip()}")
    return done.stdout


def items(kind: str, namespace: str, *arguments: str) -> list[dict[str, Any]]:
    """Return the objects of a kind in a namespace."""
    text = kubectl("get", kind, f"--namespace={namespace}", "--output=json", *arguments)
    return list(json.loads(text)["items"])


@contextmanager
def forwarded(pod: str, namespace: str) -> Iterator[str]:
    """Yield a URL of this machine that leads to a pod, through the API server."""
    command = [_program(), "port-forward", f"--namespace={namespace}", pod, f":{PORT}"]
    with subprocess.Popen(
        [*command, "--address=127.0.0.1"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            line = process.stdout.readline() if process.stdout else ""
            address = FORWARDED.match(line)
            if not address:
                raise MeadowError(f"{pod} cannot be reached: {line.strip()}")
            yield f"http://{address[1]}"
        finally:
            process.terminate()


@cache
def _program() -> str:
    return shutil.which("kubectl") or str(go_tools.binary("kubectl"))
