"""What a user did that Meadow cannot work with, said so that it can be mended."""

import errno
import sys
from collections.abc import Callable


class MeadowError(Exception):
    """A mistake that the user can mend.

    The message names the bad value, what is allowed, and the next command.
    """


def run(verb: Callable[[], object]) -> None:
    """Run a verb; a `MeadowError` becomes one clear message and exit status 1."""
    try:
        verb()
    except MeadowError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        sys.exit(f"error: {error}. Nothing half-written was kept: make room, then run it again.")
