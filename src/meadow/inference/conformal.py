"""Prediction sets with a guarantee: the true class is in the set as often as was asked for.

Split conformal prediction with the score 1 - p(class) (Sadinle 2019, arXiv 1609.00451). The
guarantee holds on average over photos like those of the calibration, whatever the network does; it
says nothing of photos of other things, which is what `out_of_distribution` looks for.
"""

import math

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.probabilities import Rows, of_targets

Probabilities = NDArray[np.float64]


def prediction_set(probabilities: Probabilities, limit: float) -> NDArray[np.bool_]:
    """Tell which classes are in the set, given the `threshold`; both of the same shape."""
    inside: NDArray[np.bool_] = _score(probabilities) <= limit
    return inside


def threshold(probabilities: Rows, targets: NDArray[np.int64], coverage: float) -> float:
    """Return the score up to which a class is in the set.

    Args:
        probabilities: (n, classes), by heads that did not learn from the photo.
        targets: class index, (n,).
        coverage: the share of photos whose set is to hold the true class.

    Returns:
        The score of rank ceil((n + 1) coverage); 1, so that every set holds all classes, where n is
        too small for that rank.

    """
    return min(quantile(_score(of_targets(probabilities, targets)), coverage), 1.0)


def quantile(scores: NDArray[np.floating], coverage: float) -> float:
    """Return what the score of another photo does not exceed, with probability `coverage`.

    Args:
        scores: of photos like it, (n,).
        coverage: between 0 and 1.

    Returns:
        The score of rank ceil((n + 1) coverage); infinity where n is too small for that rank.

    """
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else math.inf


def _score(p: Probabilities) -> Probabilities:
    return 1 - p
