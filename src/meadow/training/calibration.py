"""Probabilities from logits, and the temperature that makes them mean what they say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def calibrate(logits: NDArray[Any], targets: Ints) -> float:
    """Return the temperature, 0.05 to 20, that gives logits (n, classes) the least log-loss.

    What logits are divided by (Guo et al. 2017, arXiv 1706.04599). The targets are smoothed as if
    each class had been seen once more (Platt 1999): a few photos that are all classified correctly
    do not prove certainty.
    """
    n, classes = logits.shape
    centred = logits - logits.mean(axis=1, keepdims=True)
    wanted = centred[np.arange(n), targets].sum(dtype=np.float64) * n / (n + classes)
    cold, hot = -3.0, 3.0
    for _ in range(25):  # halvings: the log-loss is convex in 1/temperature
        middle = (cold + hot) / 2
        weighted = np.exp(log_softmax(centred / float(np.exp(middle)))) * centred
        cold, hot = (middle, hot) if weighted.sum(dtype=np.float64) > wanted else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logarithm of the probabilities that logits, (n, classes), stand for."""
    log_p: NDArray[Any] = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p
