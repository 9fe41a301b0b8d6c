"""What evaluate leaves for people: tables for DVC plots, predictions, mistakes as pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import metrics
from meadow.evaluation.contact_sheet import contact_sheet
from meadow.inference.classifier import Answer
from meadow.pipeline import atomic
from meadow.pipeline.image import decode
from meadow.pipeline.manifest import Row, write_csv

FOLDER = Path("reports")
PLOTS = Path("metrics/plots")
SHOWN = 60  # mistakes on the contact sheet, the surest first
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
            rounded = ({k: _rounded(v) for k, v in record.items()} for record in table)
            write_csv(out / f"{name}.csv", list(table[0]), rounded)


def write_predictions(
    folder: Path, rows: Sequence[Row], answers: Sequence[Answer], classes: Sequence[str]
) -> None:
    """Write predictions.csv: a line a test photo, its answer, and the probability of each class.

    SHA-256 and group (of near-duplicates) name the photo in other versions, where its path may be
    another's.
    """
    known = ["path", "sha256", "group", "label", "predicted"]
    header = [*known, "set_size", "distance", "in_distribution"]
    records = (
        {
            "path": row.path,
            "sha256": row.sha256,
            "group": row.group,
            "label": row.label,
            "predicted": classes[int(answer.probabilities.argmax())],
            "set_size": int(answer.prediction_set.sum()),
            "distance": _rounded(answer.distance),
            "in_distribution": answer.in_distribution,
        }
        | {
            f"p({name})": _rounded(float(p))
            for name, p in zip(classes, answer.probabilities, strict=True)
        }
        for row, answer in zip(rows, answers, strict=True)
    )
    write_csv(folder / "predictions.csv", [*header, *(f"p({name})" for name in classes)], records)


def write_classes(
    folder: Path, probabilities: Floats, targets: NDArray[np.int64], classes: Sequence[str]
) -> None:
    """Write classes.csv: a line a class, its test photos, recall with interval, and precision."""
    table = metrics.per_class(probabilities, targets)
    records = (
        {"class": name} | {key: _rounded(value) for key, value in each.items()}
        for name, each in zip(classes, table, strict=True)
    )
    write_csv(folder / "classes.csv", ["class", *table[0]], records)


def write_mistakes(
    folder: Path,
    photos: Path,
    rows: Sequence[Row],
    probabilities: Floats,
    classes: Sequence[str],
) -> None:
    """Draw mistakes.png: the photos that were labelled wrongly, the surest first."""
    wrong = [
        (float(answer.max()), row, classes[int(answer.argmax())])
        for row, answer in zip(rows, probabilities, strict=True)
        if classes[int(answer.argmax())] != row.label
    ]
    wrong.sort(key=lambda each: (-each[0], each[1].path))
    tiles = [
        (
            decode((photos / row.path).read_bytes()),
            f"{row.label}, not\n{predicted} ({confidence:.0%})",
        )
        for confidence, row, predicted in wrong[:SHOWN]
    ]
    title = f"{len(wrong)} of {len(rows)} test photos are labelled wrongly"
    if len(wrong) > SHOWN:
        title += f"; the {SHOWN} surest mistakes"
    contact_sheet(tiles, title).save(folder / "mistakes.png")


def _rounded(value: object) -> object:
    return round(value, 8) if isinstance(value, float) else value
