"""The order of an epoch, and its photos read in that order, in bounded memory.

A set larger than a window is shuffled by blocks of consecutive photos, and within a window. So it
is read in pieces of a few MB, while photos of the window before are learned from.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.shards import Pixels

WINDOW = 2**29  # bytes; two windows are in memory, of which each process has its share
BLOCK = 16  # photos


def window(photo: int) -> int:
    """Return the photos of a window, a multiple of the block's, for photos of so many bytes."""
    return max(WINDOW // photo // BLOCK, 1) * BLOCK


def order(rng: np.random.Generator, n: int, window: int) -> NDArray[np.int64]:
    """Shuffle n photos; those of a window come from `window / BLOCK` blocks."""
    if n <= window:
        return rng.permutation(n)
    starts = BLOCK * rng.permutation(-(-n // BLOCK))
    rows = (starts[:, None] + np.arange(BLOCK)).ravel()
    rows = rows[rows < n]
    for start in range(0, n, window):
        rng.shuffle(rows[start : start + window])
    return rows


def read(
    pixels: Pixels | NDArray[np.uint8],
    order: NDArray[np.int64],
    parts: Iterable[slice],
    window: int,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of parts of the order; those of the next window are read in a thread.

    Args:
        pixels: of all photos, (n, size, size, 3); read in slices of at most a block.
        order: see `order`.
        parts: of the order, by position, one after the other.
        window: photos of a window.

    """
    windows = [list(group) for _, group in groupby(parts, lambda part: part.start // window)]
    with ThreadPoolExecutor(1) as pool:

        def loading(parts: Sequence[slice]) -> Future[NDArray[np.uint8]]:
            return pool.submit(_load, pixels, np.concatenate([order[part] for part in parts]))

        ahead = loading(windows[0])
        for i, current in enumerate(windows, start=1):
            photos = ahead.result()
            if i < len(windows):
                ahead = loading(windows[i])
            ends = np.cumsum([part.stop - part.start for part in current])
            yield from np.split(photos, ends[:-1])


def _load(pixels: Pixels | NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    photos = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
    places = np.argsort(rows)
    edges = np.flatnonzero(np.diff(rows[places] // BLOCK)) + 1
    for block in np.split(places, edges) if len(rows) else []:
        first, last = rows[block[0]], rows[block[-1]]
        photos[block] = pixels[first : last + 1][rows[block] - first]
    return photos
