"""What a user did that Meadow cannot work with, said so that it can be mended."""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from io import TextIOWrapper


class MeadowError(Exception):
    """A mistake that the user can mend.

    The message names the bad value, what is allowed, and the next command.
    """


def did_you_mean(name: str, known: Iterable[str], most: int = 1) -> str:
    """Return a sentence, after a space, with the known names that are close to `name`; or "".

    Args:
        name: what the user wrote.
        known: what it could have been; of a mapping the values are shown.
        most: how many.

    """
    close = get_close_matches(name, known, n=most, cutoff=0.5)
    if isinstance(known, Mapping):
        close = [known[key] for key in close]
    return f" Did you mean {' or '.join(close)}?" if close else ""


def run(work: Callable[[], object]) -> None:
    """Run a stage or a command to its end, and leave with its exit status.

    A `MeadowError` and a full disk become one clear message and status 1. Ctrl-C (130) and a reader
    that has seen enough, as in `| head` (1), end it without a traceback. What the encoding of the
    terminal lacks is printed as an escape.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    status: str | int | None = None
    try:
        work()
        sys.stdout.flush()
    except SystemExit as end:
        status = end.code
    except MeadowError as error:
        status = f"error: {error}"
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 1
    except MemoryError:
        status = "error: not enough memory. Set runtime.workers lower, then run it again."
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        status = f"error: {error}. Nothing half-written was kept: make room, then run it again."
    try:
        sys.stdout.flush()
    except OSError:  # Python would say so once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if status:
        sys.exit(status)
