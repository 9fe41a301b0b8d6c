"""Figures of merit with their uncertainty, from probabilities and the true classes."""

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.intervals import wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 100  # of labels, for what chance does to the ECE
TOP = 5
BINS = 5  # of equal mass: with 80 photos more bins measure noise (Roelofs 2022, arXiv 2012.08668)


def clipped_log_loss(p_true: Floats) -> Floats:
    """Return -ln(p) of probabilities of the true class, in nats; finite for p = 0 too."""
    losses: Floats = -np.log(np.maximum(p_true, 1e-12))
    return losses


def log_losses(probabilities: Floats, targets: Ints) -> Floats:
    """Return the log-loss of each photo, in nats, (n,)."""
    return clipped_log_loss(probabilities[np.arange(len(targets)), targets])


def log_loss(probabilities: Floats, targets: Ints) -> float:
    """Return the mean of -ln(probability of the true class), in nats."""
    return float(log_losses(probabilities, targets).mean())


def brier(probabilities: Floats, targets: Ints) -> float:
    """Return the mean squared error of the probabilities, halved: 0 is perfect, 1 is the worst.

    Halved, it is the usual (p - y)^2 where there are two classes.
    """
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean() / 2)


def reliability(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return, for bins of equally many photos by confidence, confidence against accuracy."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    order = np.argsort(confidence, kind="stable")
    bins = []
    for rows in np.array_split(order, min(BINS, len(order))):
        low, high = wilson(int(correct[rows].sum()), len(rows))
        bins.append(
            {
                "confidence": float(confidence[rows].mean()),
                "accuracy": float(correct[rows].mean()),
                "accuracy_low": low,
                "accuracy_high": high,
                "photos": len(rows),
            }
        )
    return bins


def abstention(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return the accuracy on the surest photos alone, for 5 % to 100 % of them answered."""
    correct = _correct_among_surest(probabilities, targets)
    points = []
    for percent in range(5, 101, 5):
        n = -(-len(correct) * percent // 100)
        low, high = wilson(int(correct[n - 1]), n)
        points.append(
            {
                "answered": n / len(correct),
                "accuracy": float(correct[n - 1] / n),
                "accuracy_low": low,
                "accuracy_high": high,
            }
        )
    return points


def ece(probabilities: Floats, targets: Ints) -> float:
    """Return the expected calibration error: mean |confidence - accuracy| over the bins."""
    bins = reliability(probabilities, targets)
    gaps = [b["photos"] * abs(b["confidence"] - b["accuracy"]) for b in bins]
    return sum(gaps) / len(targets)


def ece_if_perfect(probabilities: Floats) -> float:
    """Return the ECE that a perfectly calibrated model of these probabilities would show.

    It is not 0, as the shares of a bin vary by chance: the mean over draws of the true classes from
    the probabilities themselves.
    """
    random = np.random.default_rng(0)
    sums = probabilities.cumsum(axis=1)
    draws = (random.random((len(sums), 1)) * sums[:, -1:] for _ in range(DRAWS))
    return float(np.mean([ece(probabilities, (sums < draw).sum(axis=1)) for draw in draws]))


def per_class(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return, for each class, its photos, recall with its 95 % interval, and precision."""
    predicted = probabilities.argmax(axis=1)
    table = []
    for target in range(probabilities.shape[1]):
        photos, claimed = int((targets == target).sum()), int((predicted == target).sum())
        hits = int(((targets == target) & (predicted == target)).sum())
        low, high = wilson(hits, photos)
        table.append(
            {
                "photos": photos,
                "recall": hits / max(1, photos),
                "recall_low": low,
                "recall_high": high,
                "precision": hits / max(1, claimed),
            }
        )
    return table


def roc(scores: Floats, positive: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Return the points of the ROC curve of a score, from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # photos of one score move together
    tpr = np.cumsum(positive[order])[last] / max(1, positive.sum())
    fpr = np.cumsum(~positive[order])[last] / max(1, (~positive).sum())
    points = zip([0.0, *fpr], [0.0, *tpr], strict=True)
    return [{"fpr": float(x), "tpr": float(y)} for x, y in points]


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve."""
    points = roc(scores, positive)
    return float(np.trapezoid([p["tpr"] for p in points], [p["fpr"] for p in points]))


def set_figures(sets: NDArray[np.bool_], targets: Ints) -> dict[str, float]:
    """Return how often prediction sets, (n, classes), hold the true class, and their mean size."""
    covered = int(sets[np.arange(len(targets)), targets].sum())
    low, high = wilson(covered, len(targets))
    return {
        "set_coverage": covered / len(targets),
        "set_coverage_low": low,
        "set_coverage_high": high,
        "set_size": float(sets.sum(axis=1).mean()),
    }


def answered_figures(
    probabilities: Floats, targets: Ints, sets: NDArray[np.bool_], near: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the share of photos that are answered, and the accuracy on those.

    A photo is answered where exactly one class is in its prediction set and it is in distribution;
    a person is to be asked about the others. Where none is answered, the accuracy lies between 0
    and 1, and has no value.

    Args:
        probabilities: (n, classes).
        targets: class index, (n,).
        sets: classes in each prediction set, (n, classes).
        near: whether each photo is in distribution, (n,).

    """
    answered = (sets.sum(axis=1) == 1) & near
    n = int(answered.sum())
    correct = int((probabilities.argmax(axis=1) == targets)[answered].sum())
    share_low, share_high = wilson(n, len(targets))
    low, high = wilson(correct, n)
    return {
        "answered_share": n / len(targets),
        "answered_share_low": share_low,
        "answered_share_high": share_high,
        **({"answered_accuracy": correct / n} if n else {}),
        "answered_accuracy_low": low,
        "answered_accuracy_high": high,
    }


def share_at_accuracy(probabilities: Floats, targets: Ints, accuracy: float) -> float:
    """Return the largest share of photos, the most confident first, with at least this accuracy."""
    correct = _correct_among_surest(probabilities, targets)
    n = np.arange(1, len(correct) + 1)
    return float(np.max(n * (correct >= accuracy * n)) / len(correct))


def _correct_among_surest(probabilities: Floats, targets: Ints) -> Ints:
    """Return how many of the 1 to n most confident answers are correct, (n,)."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    correct: Ints = np.cumsum((probabilities.argmax(axis=1) == targets)[order])
    return correct


def summary(probabilities: Floats, targets: Ints) -> dict[str, float | int]:
    """Return all figures of one set of answers."""
    correct = probabilities.argmax(axis=1) == targets
    low, high = wilson(int(correct.sum()), len(targets))
    truth = np.eye(probabilities.shape[1], dtype=bool)[targets]
    recalls = [line["recall"] for line in per_class(probabilities, targets) if line["photos"]]
    figures: dict[str, float | int] = {
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probabilities, targets),
        "brier": brier(probabilities, targets),
        "ece": ece(probabilities, targets),
        "ece_if_perfect": ece_if_perfect(probabilities),
        "auroc": auroc(probabilities.ravel(), truth.ravel()),
        "macro_recall": sum(recalls) / len(recalls),
        "worst_recall": min(recalls),
        "share_at_99": share_at_accuracy(probabilities, targets, 0.99),
    }
    if probabilities.shape[1] > TOP:
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        figures[f"top_{TOP}_accuracy"] = float((top == targets[:, None]).any(axis=1).mean())
    return figures
