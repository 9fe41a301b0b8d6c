"""The order of an epoch, and its photos read in that order, in bounded memory.

A set larger than a window is shuffled by blocks of consecutive photos, and within a window. So it
is read in pieces of a MB, while photos of the window before are learned from.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.shards import Pixels

WINDOW = 2**29  # bytes; two windows are in memory, of which each process has its share
BLOCK = 2**20  # bytes that lie side by side: enough for a disk or a network to be fast


@dataclass(frozen=True)
class Sizes:
    """Of a block and of a window, photos; a window is of whole blocks."""

    block: int
    window: int

    @classmethod
    def of(cls, photo: int) -> Self:
        """Return the sizes for photos of so many bytes."""
        block = max(BLOCK // photo, 1)
        return cls(block, max(WINDOW // photo // block, 1) * block)


def order(rng: np.random.Generator, n: int, sizes: Sizes) -> NDArray[np.int64]:
    """Shuffle n photos; those of a window come from few blocks, which lie all over the set."""
    if n <= sizes.window:
        return rng.permutation(n)
    starts = sizes.block * rng.permutation(-(-n // sizes.block))
    rows = (starts[:, None] + np.arange(sizes.block)).ravel()
    rows = rows[rows < n]
    for start in range(0, n, sizes.window):
        rng.shuffle(rows[start : start + sizes.window])
    return rows


def read(
    pixels: Pixels | NDArray[np.uint8],
    order: NDArray[np.int64],
    parts: Iterable[slice],
    sizes: Sizes,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pixels of parts of the order; those of the next window are read in a thread.

    Args:
        pixels: of all photos, (n, size, size, 3); read in slices of at most a block.
        order: see `order`.
        parts: of the order, by position, one after the other.
        sizes: those of the order.

    """
    windows = [list(group) for _, group in groupby(parts, lambda part: part.start // sizes.window)]
    with ThreadPoolExecutor(1) as pool:

        def loading(parts: Sequence[slice]) -> Future[NDArray[np.uint8]]:
            rows = np.concatenate([order[part] for part in parts])
            return pool.submit(_load, pixels, rows, sizes.block)

        ahead = loading(windows[0])
        for i, current in enumerate(windows, start=1):
            photos = ahead.result()
            if i < len(windows):
                ahead = loading(windows[i])
            ends = np.cumsum([part.stop - part.start for part in current])
            yield from np.split(photos, ends[:-1])


def _load(
    pixels: Pixels | NDArray[np.uint8], rows: NDArray[np.int64], block: int
) -> NDArray[np.uint8]:
    photos = np.empty((len(rows), *pixels.shape[1:]), np.uint8)
    places = np.argsort(rows)
    edges = np.flatnonzero(np.diff(rows[places] // block)) + 1
    for near in np.split(places, edges) if len(rows) else []:
        first, last = rows[near[0]], rows[near[-1]]
        photos[near] = pixels[first : last + 1][rows[near] - first]
    return photos
