"""Arrays that need not fit into memory: in a file without a name, which goes with the process."""

import math
import os
import tempfile

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.pipeline import cache

LARGE = 10**9  # bytes from which an array lies on disk; the system keeps in memory what it can


def empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array to be filled.

    Raises:
        MeadowError: it is large, and the cache's disk has no room for it.

    """
    size = math.prod(shape) * np.dtype(np.float32).itemsize
    if size < LARGE:
        return np.empty(shape, np.float32)
    folder = cache.folder("scratch")
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # else a full disk would kill the process
        except OSError as error:
            raise MeadowError(
                f"{folder}: no room for {size / 1e9:.1f} GB of features: {error.strerror}. Make"
                " room there, or give MEADOW_CACHE a folder on another disk."
            ) from None
        return np.asarray(np.memmap(file, np.float32, "r+", shape=shape))
