"""Which labels are probably wrong: a list for a person to go through, the worst first.

Confident learning (Northcutt et al. 2021, arXiv 1911.00068) on probabilities out of fold: a class
is believed where its probability reaches the mean that photos with this label have. The formulas
are those of cleanlab, which the tests compare with; its import alone would take 0.75 s.

The list is of train and val photos only. To correct test photos by what the model says of them
would flatter it. Nothing is changed by itself: `meadow review` writes down what a person decides.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import predictions
from meadow.pipeline.manifest import Row, write_csv

HEADER = [
    *("rank", "path", "label", "suggested", "issue", "quality", "p_label", "p_suggested"),
    *("sha256", "group"),
]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def thresholds(probabilities: Floats, targets: Ints) -> Floats:
    """Return the mean probability of each class over the photos with this label, (classes,).

    A class without photos gets 2, which nothing reaches.
    """
    given = np.eye(probabilities.shape[1])[targets]
    count = given.sum(axis=0)
    mean: Floats = np.where(count, (given * probabilities).sum(axis=0) / np.maximum(count, 1), 2.0)
    return mean


def quality(probabilities: Floats, targets: Ints) -> Floats:
    """Return how well each label fits its photo, 0 (badly) to 1, (n,).

    The probability of the label, after each class's threshold is taken off: otherwise all photos
    of a rare or hard class would come first.
    """
    expected = thresholds(probabilities, targets)
    adjusted = probabilities - expected + expected.max()
    fit: Floats = adjusted[np.arange(len(targets)), targets] / adjusted.sum(axis=1)
    return fit


def issues(probabilities: Floats, targets: Ints) -> NDArray[np.bool_]:
    """Return for each photo whether confident learning takes its label for wrong, (n,).

    That is: another class reaches its threshold, and the label is not the likeliest class.
    """
    close = 1e-6  # of two equal probabilities the label's counts
    believed = probabilities >= thresholds(probabilities, targets) - close
    likeliest = probabilities.argmax(axis=1)
    guess = np.where(believed.sum(axis=1) > 1, likeliest, believed.argmax(axis=1))
    given = probabilities[np.arange(len(targets)), targets]
    unlikely = given + close < probabilities.max(axis=1)
    wrong: NDArray[np.bool_] = believed.any(axis=1) & (guess != targets) & unlikely
    return wrong


def write(rows: Sequence[Row], probabilities: Floats, classes: Sequence[str]) -> None:
    """Write review.csv, all photos by the quality of their label; no photos, no lines.

    Args:
        rows: n photos.
        probabilities: of each class, by a model that did not see the photo, (n, classes).
        classes: their names.

    """
    targets = np.array([classes.index(row.label) for row in rows], dtype=np.int64)
    fit = quality(probabilities, targets).round(8)
    wrong = issues(probabilities, targets)
    order = sorted(range(len(rows)), key=lambda i: (fit[i], rows[i].path))
    records = (
        {
            "rank": rank,
            "path": rows[i].path,
            "label": rows[i].label,
            "suggested": classes[int(probabilities[i].argmax())],
            "issue": str(bool(wrong[i])).lower(),
            "quality": fit[i],
            "p_label": probabilities[i, targets[i]],
            "p_suggested": probabilities[i].max(),
            "sha256": rows[i].sha256,
            "group": rows[i].group,
        }
        for rank, i in enumerate(order, 1)
    )
    write_csv(predictions.OUT_OF_FOLD, HEADER, records)
