"""Counts of what a service answered, in bounded memory however many answers there are.

A two-sample Kolmogorov-Smirnov test needs of the larger sample only how many values lie at, and how
many between, the values of the smaller one: these counts lose nothing. They are kept for blocks of
time, at most `BLOCKS` of equal numbers of answers, so that the time of a change can be told.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meadow.inference.reference import Reference
from meadow.inference.signals import SIGNALS

BLOCKS = 64
FIRST = 16  # answers in a block; twice as many whenever all blocks are full
SAMPLE = 500  # answers that the joint test looks at, drawn from all
Counts = NDArray[np.int64]


class Tally:
    """Counts answers beside a reference.

    Attributes:
        counts: of each signal of the reference and of `predicted`, (blocks, cells).
        times: of the first answer of each block.
        sample: signals of up to `SAMPLE` answers, drawn at random from all, (n, signals).
        total: answers.

    """

    def __init__(self, reference: Reference, classes: int) -> None:
        self.edges = {name: np.unique(known) for name, known in reference.signals.items()}
        cells = {name: 2 * len(edges) + 1 for name, edges in self.edges.items()}
        cells["predicted"] = classes
        self.counts = {name: np.zeros((BLOCKS, size), np.int64) for name, size in cells.items()}
        self.times: list[str] = []
        self.sample = np.empty((0, len(SIGNALS)))
        self.total = 0
        self._keys = np.empty(0)
        self._random = np.random.default_rng(0)
        self._size, self._filled = FIRST, FIRST

    @property
    def room(self) -> int:
        """How many answers the next call of `add` may bring at most."""
        return self._size - self._filled or self._size

    def add(
        self, times: Sequence[str], signals: NDArray[np.float64], predicted: NDArray[np.int64]
    ) -> None:
        """Count at most `room` answers, in the order of their times.

        Args:
            times: n of them.
            signals: in the order of `SIGNALS`, (n, signals); NaN where an event lacks one.
            predicted: index of the class, (n,).

        """
        if self._filled == self._size:
            self._begin(times[0])
        block = len(self.times) - 1
        for name, values in zip(SIGNALS, signals.T, strict=True):
            if name in self.edges:
                self.counts[name][block] += self.cells(name, values[~np.isnan(values)])
        self.counts["predicted"][block] += np.bincount(
            predicted, minlength=self.counts["predicted"].shape[1]
        )
        self._filled += len(times)
        self.total += len(times)
        keys = np.concatenate([self._keys, self._random.random(len(times))])
        kept = np.argsort(keys)[:SAMPLE]
        self._keys, self.sample = keys[kept], np.concatenate([self.sample, signals])[kept]

    def cells(self, name: str, values: NDArray[np.float64]) -> Counts:
        """Count values by cell: below the first value of the reference, at it, above it, ..."""
        edges = self.edges[name]
        cell = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
        return np.bincount(cell, minlength=2 * len(edges) + 1)

    def _begin(self, time: str) -> None:
        """Begin a block; where all are full, make one of each two."""
        if len(self.times) == BLOCKS:
            for name, counts in self.counts.items():
                merged = np.zeros_like(counts)
                merged[: BLOCKS // 2] = counts[::2] + counts[1::2]
                self.counts[name] = merged
            self.times = self.times[::2]
            self._size *= 2
        self.times.append(time)
        self._filled = 0
