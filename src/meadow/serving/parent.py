"""Have a process end with the one that started it, even where that one is killed."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

# A process of nobody: it waits for the end of the pipe, which is that of the one that holds it.
_GUARD = 'exec 3<&0; (cat <&3; while kill "$1"; do sleep 1; done) > /dev/null 2>&1 &'


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when the thread that started it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


kill_with_parent = partial(end_with_parent, signal.SIGKILL)


@contextmanager
def guarded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Have a process that the block ends get SIGTERM until it ends, if this process is killed.

    Once is not enough: BentoML loses a SIGTERM that comes while it starts a worker.
    """
    read, write = os.pipe()
    command = ["sh", "-c", _GUARD, "sh", str(process.pid)]
    subprocess.run(command, stdin=read, start_new_session=True, check=True)
    os.close(read)
    try:
        yield
    finally:
        os.close(write)
