"""What evaluate leaves as tables: the points of the plots, and how each class fares."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import metrics
from meadow.pipeline import atomic
from meadow.pipeline.manifest import write_csv
from meadow.pipeline.probabilities import Rows, likeliest

CLASSES = Path("reports/classes.csv")
PLOTS = Path("metrics/plots")
POINTS = 10_000  # of a curve


def write_plots(probabilities: Rows, targets: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write confusion.csv, roc.csv, reliability.csv and abstention.csv.

    With two classes the ROC curve is that of the first; with more it is the micro-average: one
    point per photo and class, of many no more than `POINTS`.
    """
    if len(classes) == 2:
        fpr, tpr = metrics.roc(probabilities[:][:, 0], targets == 0)
    else:
        fpr, tpr = metrics.micro_roc(probabilities, targets)
    shown = np.unique(np.linspace(0, len(fpr) - 1, min(len(fpr), POINTS)).round().astype(int))
    best, _ = likeliest(probabilities)
    confusion = [
        {"actual": classes[actual], "predicted": classes[predicted]}
        for actual, predicted in zip(targets, best, strict=True)
    ]
    tables = {
        "confusion": confusion,
        "roc": [
            {"fpr": float(x), "tpr": float(y)} for x, y in zip(fpr[shown], tpr[shown], strict=True)
        ],
        "reliability": metrics.reliability(probabilities, targets),
        "abstention": metrics.abstention(probabilities, targets),
    }
    with atomic.whole(PLOTS) as out:
        out.mkdir()
        for name, table in tables.items():
            write_csv(out / f"{name}.csv", list(table[0]), table)


def write_classes(probabilities: Rows, targets: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write classes.csv: a line a class, its test photos, recall with interval, and precision."""
    table = metrics.per_class(probabilities, targets)
    records = ({"class": name, **line} for name, line in zip(classes, table, strict=True))
    write_csv(CLASSES, ["class", *table[0]], records)
