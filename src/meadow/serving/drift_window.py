"""How far the last answers are from the reference: a gauge of each signal.

The gauge is Kolmogorov's distance over the least one that is no chance: from 1 on it is drift.
`CHANCE` allows for looking again and again: in days of 10,000 photos a false alarm comes once in 70
days. `meadow drift` looks closer.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from meadow.inference.reference import Reference

WINDOW = 200  # answers
STEP = 50  # answers from one look to the next: 0.01 ms of each
CHANCE = 1e-5  # that one signal of one look passes 1, where nothing has changed


class DriftWindow:
    """The last `WINDOW` answers of one worker.

    Args:
        reference: what they are compared with.
        show: gets each signal's distance after each look.

    """

    def __init__(self, reference: Reference, show: Callable[[str, float], None]) -> None:
        self.reference = {name: np.sort(known) for name, known in reference.signals.items()}
        self.show = show
        self.values = np.empty((len(self.reference), WINDOW))
        self.seen = 0

    def add(self, signals: Mapping[str, float]) -> None:
        """Take one answer, and look where it is time to."""
        self.values[:, self.seen % WINDOW] = [signals[name] for name in self.reference]
        self.seen += 1
        if self.seen % STEP == 0:
            held = np.sort(self.values[:, : self.seen])
            for name, values in zip(self.reference, held, strict=True):
                self.show(name, relative_distance(self.reference[name], values))


def relative_distance(known: NDArray[np.float64], new: NDArray[np.float64]) -> float:
    """Return Kolmogorov's distance of two sorted samples over that which has `CHANCE`."""
    n, m = len(new), len(known)
    values = np.concatenate([known, new])
    shares = [np.searchsorted(part, values, "right") / len(part) for part in (known, new)]
    least = math.sqrt(-math.log(CHANCE / 2) / 2 * (n + m) / (n * m))
    return float(np.abs(shares[0] - shares[1]).max() / least)
