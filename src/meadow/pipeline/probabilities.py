"""Probabilities of n photos by k classes, whole where they are few, else of the likeliest classes.

All that reads them goes through them in blocks of photos, so nothing needs n times k numbers.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WHOLE = 2 * 10**7  # photos times classes up to which all are kept: 80 MB as float32
KEPT = 50  # classes of a photo that are kept of more: the likeliest, its label among them
PAIR = np.dtype([("class", "<i4"), ("log_p", "<f4")])
AT_ONCE = 2**20  # numbers of a block: it stays in the processor's cache


class Rows(Protocol):
    """Probabilities, (n, k), of which a slice of photos can be taken: an array, or `Likeliest`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (n, k)."""

    def __getitem__(self, part: slice, /) -> Floats:
        """Return those of some photos, (part, k)."""


@dataclass(frozen=True)
class Likeliest:
    """Probabilities of the likeliest classes; the others share evenly what is left to 1.

    Attributes:
        pairs: of type `PAIR`, (n, kept), no class twice.
        classes: number of all classes.

    """

    pairs: NDArray[Any]
    classes: int

    @property
    def shape(self) -> tuple[int, int]:
        """Return (n, k)."""
        return len(self.pairs), self.classes

    def __getitem__(self, part: slice, /) -> Floats:
        """Return the probabilities of some photos, (part, k); each row sums to 1."""
        kept, left = self.parts(part)
        p = np.repeat(left[:, None], self.classes, axis=1)
        np.put_along_axis(p, self.pairs["class"][part].astype(np.int64), kept, axis=1)
        return p

    def parts(self, part: slice) -> tuple[Floats, Floats]:
        """Return the kept probabilities, (part, kept), and that of each other class, (part,)."""
        kept = np.exp(self.pairs["log_p"][part], dtype=np.float64)
        total = kept.sum(axis=1)
        left = np.maximum(1 - total, 0) / (self.classes - kept.shape[1])
        return kept / np.maximum(total, 1)[:, None], left


def room(n: int, classes: int) -> NDArray[Any]:
    """Return an array for what is kept: log-probabilities, (n, k), or pairs, (n, `KEPT`).

    All are kept where that takes little, or hardly more than a part of them.
    """
    if n * classes <= WHOLE or classes <= 2 * KEPT:
        return np.empty((n, classes), np.float32)
    return np.empty((n, KEPT), PAIR)


def store(log_p: NDArray[np.float32], targets: Ints, like: NDArray[Any]) -> NDArray[Any]:
    """Return what is kept of log-probabilities, (n, k), in an array `like` that of `room`."""
    if like.dtype != PAIR:
        return log_p
    rows = np.arange(len(log_p))[:, None]
    places = np.argpartition(log_p, -KEPT, axis=1)[:, -KEPT:]
    places = places[rows, np.argsort(-log_p[rows, places], axis=1, kind="stable")]
    lacking = ~(places == targets[:, None]).any(axis=1)
    places[lacking, -1] = targets[lacking]
    pairs = np.empty(places.shape, PAIR)
    pairs["class"], pairs["log_p"] = places, log_p[rows, places]
    return pairs


def stored(kept: NDArray[Any], classes: int) -> Rows:
    """Return the probabilities that `store` kept; whole ones as they were rounded."""
    return np.exp(kept, dtype=np.float64) if kept.dtype != PAIR else Likeliest(kept, classes)


def collected(each: Iterable[Floats], targets: Ints, classes: int) -> Rows:
    """Return probabilities that come photo by photo, each (k,): to the bit where `room` has all."""
    kept = room(len(targets), classes)
    if kept.dtype != PAIR:
        whole = np.empty(kept.shape)
        for i, p in enumerate(each):
            whole[i] = p
        return whole
    for i, p in enumerate(each):
        log_p = np.log(np.maximum(p, np.finfo(np.float32).tiny), dtype=np.float32)
        kept[i] = store(log_p[None], targets[i : i + 1], like=kept)[0]
    return Likeliest(kept, classes)


def blocks(p: Rows) -> Iterator[tuple[slice, Floats]]:
    """Go through the photos: yield which, and their probabilities, (part, k)."""
    n, classes = p.shape
    rows = max(1, AT_ONCE // classes)
    for start in range(0, n, rows):
        part = slice(start, min(start + rows, n))
        yield part, p[part]


def likeliest(p: Rows) -> tuple[Ints, Floats]:
    """Return the likeliest class of each photo, (n,), and its probability, (n,)."""
    each = [(block.argmax(axis=1), block.max(axis=1)) for _, block in blocks(p)]
    best, confidence = zip(*each, strict=True) if each else ([np.zeros(0, np.int64)], [np.zeros(0)])
    return np.concatenate(best), np.concatenate(confidence)


def of_targets(p: Rows, targets: Ints) -> Floats:
    """Return the probability of one class of each photo, (n,)."""
    each = [block[np.arange(len(block)), targets[part]] for part, block in blocks(p)]
    return np.concatenate(each) if each else np.zeros(0)
