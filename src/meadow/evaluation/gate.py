"""Whether a model may be released, in words."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import metrics
from meadow.evaluation.significance import bootstrap
from meadow.params import Evaluate
from meadow.pipeline.manifest import Row
from meadow.pipeline.probabilities import Floats, Rows

RELEASED = Path("metrics/released.csv")  # predictions of the last released model, in Git
FEWEST_COMPARED = (
    16  # photos of a comparison; of fewer, all right, the accuracy may still be below 0.8
)


def verdict(
    figures: dict[str, Any],
    rows: Sequence[Row],
    probabilities: Rows,
    targets: NDArray[np.int64],
    p: Evaluate,
) -> dict[str, Any]:
    """Judge accuracy, log-loss, the last released model, and the photos that are answered.

    Args:
        figures: of evaluate.
        rows: the test photos.
        probabilities: of each, (n, classes).
        targets: class index, (n,).
        p: the limits.

    Returns:
        `passed`, and `why`: a sentence for each judgement, whether it passed or failed.

    """
    low, high = figures["accuracy_low"], figures["accuracy_high"]
    judgements = [
        (
            low >= p.min_accuracy,
            f"the test accuracy is {low:.3f} to {high:.3f} (95 % interval); its lower end is to"
            f" reach evaluate.min_accuracy {p.min_accuracy}",
        ),
        (
            figures["log_loss"] <= p.max_log_loss,
            f"the test log-loss is {figures['log_loss']:.3f}; evaluate.max_log_loss is"
            f" {p.max_log_loss}",
        ),
        against_released(rows, metrics.log_losses(probabilities, targets), released()),
        (
            figures["answered_accuracy_low"] >= p.min_answered_accuracy,
            f"{figures['answered_share']:.1%} of the test photos are answered (one class in the"
            " prediction set, in distribution), with an accuracy of"
            f" {figures['answered_accuracy_low']:.3f} to {figures['answered_accuracy_high']:.3f}"
            " (95 % interval); its lower end is to reach evaluate.min_answered_accuracy"
            f" {p.min_answered_accuracy}",
        ),
    ]
    return {
        "passed": all(good for good, _ in judgements),
        "why": [f"{'passed' if good else 'failed'}: {why}" for good, why in judgements],
    }


def against_released(
    rows: Sequence[Row], losses: Floats, old: Mapping[tuple[str, str], float]
) -> tuple[bool, str]:
    """Compare with the last released model, on the photos that both were tested on alike.

    Args:
        rows: the test photos.
        losses: log-loss of each, (n,).
        old: log-loss of the released model by SHA-256 and label of the photo.

    Returns:
        Whether it is not significantly worse: the 95 % interval of the mean difference (paired
        bootstrap over groups of near-duplicates) does not lie above 0. And that in words.

    """
    if not old:
        return True, "there is no released model to compare with (`meadow release` makes one)"
    both = [i for i, row in enumerate(rows) if (row.sha256, row.label) in old]
    if len(both) < FEWEST_COMPARED:
        return False, (
            f"this and the released model were tested on only {len(both)} photos with the same"
            f" label; a comparison needs {FEWEST_COMPARED}. To release this one without it, remove"
            f" all but the first line of {RELEASED}, then run `dvc repro`"
        )
    difference = losses[both] - np.array([old[rows[i].sha256, rows[i].label] for i in both])
    low, high = bootstrap(difference, [rows[i].group for i in both])
    # judged as it is said: the file's losses are rounded, and an equal model must pass
    mean, low, high = (round(x, 3) for x in (float(difference.mean()), low, high))
    return low <= 0, (
        f"against the released model, on {len(both)} photos that both were tested on with the same"
        f" label, the log-loss differs by {mean:+z.3f} ({low:+z.3f} to {high:+z.3f}); it must not"
        " be significantly higher"
    )


def released() -> dict[tuple[str, str], float]:
    """Read the log-loss of the last released model on each of its test photos.

    By SHA-256 and label; a file of before labels were kept has "" for each, which is none of them.
    """
    if not RELEASED.exists():
        return {}
    with RELEASED.open(encoding="utf-8", newline="") as file:
        return {
            (record["sha256"], record.get("label", "")): float(record["log_loss"])
            for record in csv.DictReader(file)
        }
