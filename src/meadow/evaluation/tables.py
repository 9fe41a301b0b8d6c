"""What evaluate leaves as tables: the points of the plots, and how each class fares."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import metrics
from meadow.pipeline import atomic
from meadow.pipeline.manifest import write_csv

CLASSES = Path("reports/classes.csv")
PLOTS = Path("metrics/plots")
Floats = NDArray[np.float64]


def write_plots(probabilities: Floats, targets: NDArray[np.int64], classes: Sequence[str]) -> None:
    """Write confusion.csv, roc.csv, reliability.csv and abstention.csv.

    With two classes the ROC curve is that of the first; with more it is the micro-average: one
    point per photo and class.
    """
    truth = np.eye(len(classes), dtype=bool)[targets]
    columns = slice(0, 1) if len(classes) == 2 else slice(None)
    confusion = [
        {"actual": classes[actual], "predicted": classes[predicted]}
        for actual, predicted in zip(targets, probabilities.argmax(axis=1), strict=True)
    ]
    tables = {
        "confusion": confusion,
        "roc": metrics.roc(probabilities[:, columns].ravel(), truth[:, columns].ravel()),
        "reliability": metrics.reliability(probabilities, targets),
        "abstention": metrics.abstention(probabilities, targets),
    }
    with atomic.whole(PLOTS) as out:
        out.mkdir()
        for name, table in tables.items():
            write_csv(out / f"{name}.csv", list(table[0]), table)


def write_classes(
    probabilities: Floats, targets: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Write classes.csv: a line a class, its test photos, recall with interval, and precision."""
    table = metrics.per_class(probabilities, targets)
    records = ({"class": name, **line} for name, line in zip(classes, table, strict=True))
    write_csv(CLASSES, ["class", *table[0]], records)
