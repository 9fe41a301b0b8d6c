"""The answer to each photo as a table: of the test photos, and of the others out of fold."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.manifest import Row, write_csv
from meadow.pipeline.probabilities import KEPT, Rows, blocks

TEST = Path("reports/predictions.csv")
CONFIDENCE, P_LABEL, LIKELIEST = "confidence", "p_label", "likeliest"  # columns of many classes
OUT_OF_FOLD = Path("reports/review.csv")  # `label_issues` writes it, with a verdict on each label


@dataclass(frozen=True)
class Prediction:
    """What a model answers to a photo.

    SHA-256 and group name the photo in other versions, where its path may be another's.

    Attributes:
        path: of the photo, in the set's folder at that time.
        sha256: of its file.
        group: content key of its group of near-duplicates.
        label: its class.
        predicted: the class that the model gave it.
        confidence: the probability of that class.
        p_label: the probability of `label`.
        set_size: number of classes in the prediction set; test photos only, as the next one.
        in_distribution: whether the photo is like those that were learned from.
        issue: whether the label is probably wrong; photos out of fold only.

    """

    path: str
    sha256: str
    group: str
    label: str
    predicted: str
    confidence: float
    p_label: float
    set_size: int = 1
    in_distribution: bool = True
    issue: bool = False

    @property
    def correct(self) -> bool:
        """Whether the photo is classified correctly."""
        return self.label == self.predicted


def write(
    rows: Sequence[Row],
    classes: Sequence[str],
    *,
    probabilities: Rows,
    set_sizes: NDArray[np.int64],
    distance: NDArray[np.float64],
    in_distribution: NDArray[np.bool_],
) -> None:
    """Write predictions.csv: a line a test photo, its answer, and the probability of each class.

    Of more than 2 `KEPT` classes a line has the likeliest, as a JSON object, and the label's.

    Args:
        rows: the n photos.
        classes: names of the k classes.
        probabilities: (n, k).
        set_sizes: number of classes in the prediction set of each, (n,).
        distance: to the photos that were learned from, (n,).
        in_distribution: whether that is near enough, (n,).

    """
    header = ["path", "sha256", "group", "label", "predicted"]
    header += ["set_size", "distance", "in_distribution"]
    place = {name: i for i, name in enumerate(classes)}
    many = len(classes) > 2 * KEPT
    header += [CONFIDENCE, P_LABEL, LIKELIEST] if many else [f"p({name})" for name in classes]

    def answer(row: Row, p: NDArray[np.float64]) -> dict[str, object]:
        if not many:
            return {f"p({name})": value for name, value in zip(classes, p, strict=True)}
        first = np.argsort(-p, kind="stable")[:KEPT]
        named = {classes[k]: round(float(p[k]), 8) for k in first}
        return {
            CONFIDENCE: p.max(),
            P_LABEL: p[place[row.label]],
            LIKELIEST: json.dumps(named, ensure_ascii=False),
        }

    records = (
        {
            "path": row.path,
            "sha256": row.sha256,
            "group": row.group,
            "label": row.label,
            "predicted": classes[int(p.argmax())],
            "set_size": int(set_sizes[i]),
            "distance": distance[i],
            "in_distribution": bool(in_distribution[i]),
        }
        | answer(row, p)
        for part, block in blocks(probabilities)
        for i, (row, p) in enumerate(zip(rows[part], block, strict=True), part.start)
    )
    write_csv(TEST, header, records)


def read(lines: Iterable[str]) -> list[Prediction]:
    """Read the lines of either table, in their order.

    Raises:
        KeyError: a column is missing, as in tables from before photos were named by content.

    """
    return [_prediction(record) for record in csv.DictReader(lines)]


def load(path: Path) -> list[Prediction]:
    """Read a table of the workspace."""
    with path.open(encoding="utf-8", newline="") as file:
        return read(file)


def _prediction(record: Mapping[str, str]) -> Prediction:
    out_of_fold = "suggested" in record
    predicted = record["suggested" if out_of_fold else "predicted"]
    if out_of_fold:
        confidence, p_label = record["p_suggested"], record[P_LABEL]
    elif LIKELIEST in record:
        confidence, p_label = record[CONFIDENCE], record[P_LABEL]
    else:
        confidence, p_label = record[f"p({predicted})"], record[f"p({record['label']})"]
    return Prediction(
        path=record["path"],
        sha256=record["sha256"],
        group=record["group"],
        label=record["label"],
        predicted=predicted,
        confidence=float(confidence),
        p_label=float(p_label),
        set_size=int(record.get("set_size", 1)),
        in_distribution=record.get("in_distribution", "True") == "True",
        issue=record.get("issue") == "true",
    )
