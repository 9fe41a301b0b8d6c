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
from meadow.pipeline.probabilities import Floats, Ints, Rows, blocks, likeliest, of_targets

HEADER = [
    *("rank", "path", "label", "suggested", "issue", "quality", "p_label", "p_suggested"),
    *("sha256", "group"),
]


def thresholds(probabilities: Rows, targets: Ints) -> Floats:
    """Return the mean probability of each class over the photos with this label, (classes,).

    A class without photos gets 2, which nothing reaches.
    """
    classes = probabilities.shape[1]
    count = np.bincount(targets, minlength=classes)
    total = np.bincount(targets, of_targets(probabilities, targets), classes)
    mean: Floats = np.where(count, total / np.maximum(count, 1), 2.0)
    return mean


def quality(probabilities: Rows, targets: Ints) -> Floats:
    """Return how well each label fits its photo, 0 (badly) to 1, (n,).

    The probability of the label, after each class's threshold is taken off: otherwise all photos
    of a rare or hard class would come first.
    """
    expected = thresholds(probabilities, targets)
    fit = np.empty(len(targets))
    for part, block in blocks(probabilities):
        adjusted = block - expected + expected.max()
        fit[part] = adjusted[np.arange(len(block)), targets[part]] / adjusted.sum(axis=1)
    return fit


def issues(probabilities: Rows, targets: Ints) -> NDArray[np.bool_]:
    """Return for each photo whether confident learning takes its label for wrong, (n,).

    That is: another class reaches its threshold, and the label is not the likeliest class.
    """
    close = 1e-6  # of two equal probabilities the label's counts
    reached = thresholds(probabilities, targets) - close
    wrong = np.empty(len(targets), bool)
    for part, block in blocks(probabilities):
        labels = targets[part]
        believed = block >= reached
        guess = np.where(believed.sum(axis=1) > 1, block.argmax(axis=1), believed.argmax(axis=1))
        given = block[np.arange(len(block)), labels]
        unlikely = given + close < block.max(axis=1)
        wrong[part] = believed.any(axis=1) & (guess != labels) & unlikely
    return wrong


def write(rows: Sequence[Row], probabilities: Rows, classes: Sequence[str]) -> None:
    """Write review.csv, all photos by the quality of their label; no photos, no lines.

    Args:
        rows: n photos.
        probabilities: of each class, by a model that did not see the photo, (n, classes).
        classes: their names.

    """
    place = {name: i for i, name in enumerate(classes)}
    targets = np.array([place[row.label] for row in rows], dtype=np.int64)
    (best, confidence), given = likeliest(probabilities), of_targets(probabilities, targets)
    fit = quality(probabilities, targets).round(8)
    wrong = issues(probabilities, targets)
    order = sorted(range(len(rows)), key=lambda i: (fit[i], rows[i].path))
    records = (
        {
            "rank": rank,
            "path": rows[i].path,
            "label": rows[i].label,
            "suggested": classes[best[i]],
            "issue": str(bool(wrong[i])).lower(),
            "quality": fit[i],
            "p_label": given[i],
            "p_suggested": confidence[i],
            "sha256": rows[i].sha256,
            "group": rows[i].group,
        }
        for rank, i in enumerate(order, 1)
    )
    write_csv(predictions.OUT_OF_FOLD, HEADER, records)
