"""Have a process end with the one that started it, even where that one is killed."""

import ctypes
import signal
import sys
from functools import partial


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Have Linux send this process a signal when the thread that started it has ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)  # PR_SET_PDEATHSIG


kill_with_parent = partial(end_with_parent, signal.SIGKILL)
