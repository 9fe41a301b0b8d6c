"""Probabilities from logits, and the temperature that makes them mean what they say."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

AT_ONCE = 2**22  # numbers of a block


def calibrate(logits: NDArray[Any], targets: Ints, photos: int | None = None) -> float:
    """Return the temperature, 0.05 to 20, that gives logits (n, classes) the least log-loss.

    What logits are divided by (Guo et al. 2017, arXiv 1706.04599). The targets are smoothed as if
    each class had been seen once more (Platt 1999): a few photos that are all classified correctly
    do not prove certainty.

    Args:
        logits: of all photos, or of a sample of them.
        targets: class index, (n,).
        photos: how many there are, where these are a sample.

    """
    n, classes = logits.shape
    seen = photos or n
    centred = logits - logits.mean(axis=1, keepdims=True)
    wanted = centred[np.arange(n), targets].sum(dtype=np.float64) * seen / (seen + classes)
    rows = max(1, AT_ONCE // classes)
    blocks = [centred[start : start + rows] for start in range(0, n, rows)]
    cold, hot = -3.0, 3.0
    for _ in range(25):  # halvings: the log-loss is convex in 1/temperature
        middle = (cold + hot) / 2
        divisor = float(np.exp(middle))
        weighted = (np.exp(log_softmax(block / divisor)) * block for block in blocks)
        total = sum(block.sum(dtype=np.float64) for block in weighted)
        cold, hot = (middle, hot) if total > wanted else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def cross_fitted(
    logits: NDArray[Any], targets: Ints, fold: Ints, temperature: float | None
) -> NDArray[Any]:
    """Return log-probabilities of photos that chose neither the epoch nor the temperature.

    Photos that choose both look surer than new ones. So each fold has the epoch and the temperature
    that the other folds choose, unless a temperature is given that no photo of them chose.

    Args:
        logits: after each epoch, (epochs, n, classes).
        targets: class index, (n,).
        fold: of each photo, (n,); two folds at least.
        temperature: None where the photos choose it.

    Returns:
        (n, classes).

    """
    log_p = np.empty(logits.shape[1:])
    truth = np.arange(len(targets))
    losses = np.stack([-log_softmax(epoch.astype(np.float64))[truth, targets] for epoch in logits])
    for part in range(fold.max() + 1):
        inside = fold == part
        best = logits[losses[:, ~inside].mean(axis=1).argmin()].astype(np.float64)
        divisor = temperature or calibrate(best[~inside], targets[~inside])
        log_p[inside] = log_softmax(best[inside] / divisor)
    return log_p


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Return the logarithm of the probabilities that logits, (n, classes), stand for."""
    log_p: NDArray[Any] = logits - logits.max(axis=1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=1, keepdims=True))
    return log_p
