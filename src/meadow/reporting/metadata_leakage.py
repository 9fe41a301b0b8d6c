"""What tells the classes apart that is not in the picture: the size of the files, their shape.

Where one class came from another camera, site or converter, a model can learn that instead of what
the photos show, and its test figures look good, as the test photos share the fault.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc

from meadow.pipeline.hashing import hash_fraction
from meadow.pipeline.intervals import wilson
from meadow.training.probe import FOLDS, Examples, fit, folds

JUDGED = 5000  # photos that are judged: an interval 3 points wide
REGRESSED = 50  # classes at most for the regression, whose time grows with them
TOGETHER = "size, shape and format together"
BINS = 10  # of equally many photos, for each number
L2 = 0.01  # of the softmax regression on all together
FALSE_WARNINGS = 0.05  # probability of one or more in a report
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Leak:
    """How well one thing tells the classes apart, by cross-validation.

    Attributes:
        name: of the thing.
        accuracy: share of the photos whose class it tells.
        low, high: its 95 % interval (Wilson).
        chance: share of the largest class: what knowing nothing gives.
        significant: whether it is more than chance, corrected for the number of things tried.

    """

    name: str
    accuracy: float
    low: float
    high: float
    chance: float
    significant: bool


def check(
    columns: Mapping[str, Floats], targets: Ints, groups: Sequence[str], classes: int
) -> list[Leak]:
    """Judge each column alone, and all of them together; the best first.

    One alone: in each tenth of its values, the class that is most frequent there among the other
    folds. Together: softmax regression on the same tenths.

    Args:
        columns: name to values, (n,).
        targets: class index, (n,).
        groups: content key of each photo's group of near-duplicates, n; no fold parts a group.
        classes: number of classes.

    Returns:
        The judgements; none where there are too few photos to judge.

    """
    chosen = sorted(range(len(targets)), key=lambda i: (hash_fraction(groups[i]), i))[:JUDGED]
    targets, groups = targets[chosen], [groups[i] for i in chosen]
    if len(set(groups)) < 2 * FOLDS or len(set(targets.tolist())) < 2:
        return []
    binned = {name: _bins(values[chosen]) for name, values in columns.items()}
    features = np.concatenate([np.eye(bins.max() + 1)[bins] for bins in binned.values()], axis=1)
    examples = Examples(features, targets, groups, classes)
    fold = folds(examples.groups, examples.targets, FOLDS)
    predictions = {name: _alone(bins, targets, fold, classes) for name, bins in binned.items()}
    if classes <= REGRESSED:
        held_out = fit(examples, L2).held_out.round(3)  # equal ones differ in the last digit
        predictions[TOGETHER] = held_out.argmax(axis=1)
    chance = float(np.bincount(targets).max() / len(targets))
    leaks = []
    for name, predicted in predictions.items():
        hits, n = int((predicted == targets).sum()), len(targets)
        p_value = float(bdtrc(hits - 1, n, chance))  # of so many hits or more by chance
        significant = p_value < FALSE_WARNINGS / len(predictions)
        leaks.append(Leak(name, hits / n, *wilson(hits, n), chance, significant))
    return sorted(leaks, key=lambda leak: (-leak.accuracy, leak.name))


def _bins(values: Floats) -> Ints:
    """Return in which of `BINS` parts of equally many photos each value lies, (n,)."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
    place = np.searchsorted(edges, values, "left")
    return np.unique(place, return_inverse=True)[1].astype(np.int64)


def _alone(bins: Ints, targets: Ints, fold: Ints, classes: int) -> Ints:
    """Return the class most frequent in each photo's bin among the other folds, (n,)."""
    predicted = np.empty_like(targets)
    for number in range(FOLDS):
        rest, held = fold != number, fold == number
        counts = np.zeros((bins.max() + 1, classes))
        np.add.at(counts, (bins[rest], targets[rest]), 1)
        counts += counts.sum(axis=0) / (
            counts.sum() + 1
        )  # an empty bin stands for the largest class
        predicted[held] = counts.argmax(axis=1)[bins[held]]
    return predicted
