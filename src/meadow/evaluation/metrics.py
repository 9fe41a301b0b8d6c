"""Figures of merit with their uncertainty, from probabilities and the true classes."""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Z95 = NormalDist().inv_cdf(0.975)
DRAWS = 100  # of what chance does to the ECE
TOP = 5
BINS = 5  # of equal mass: with 80 photos more bins measure noise (Roelofs 2022, arXiv 2012.08668)


def wilson(hits: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = hits / n
    middle = share + Z95**2 / (2 * n)
    half = Z95 * np.sqrt(share * (1 - share) / n + Z95**2 / (4 * n**2))
    scale = 1 + Z95**2 / n
    return float(max(0, (middle - half) / scale)), float(min(1, (middle + half) / scale))


def true_log_loss(probabilities: Floats, targets: Ints) -> Floats:
    """Return -ln(probability of the true class) of each photo, in nats, (n,)."""
    losses: Floats = -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-12))
    return losses


def log_loss(probabilities: Floats, targets: Ints) -> float:
    """Return the mean of -ln(probability of the true class), in nats."""
    return float(true_log_loss(probabilities, targets).mean())


def brier(probabilities: Floats, targets: Ints) -> float:
    """Return the mean squared error of the probabilities, halved: 0 is perfect, 1 is the worst.

    Halved, it is the usual (p - y)^2 where there are two classes.
    """
    truth = np.eye(probabilities.shape[1])[targets]
    return float(((probabilities - truth) ** 2).sum(axis=1).mean() / 2)


def reliability(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return, for bins of equally many photos by confidence, confidence against accuracy."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    order = np.argsort(confidence, kind="stable")
    bins = []
    for rows in np.array_split(order, min(BINS, len(order))):
        low, high = wilson(int(right[rows].sum()), len(rows))
        bins.append(
            {
                "confidence": float(confidence[rows].mean()),
                "accuracy": float(right[rows].mean()),
                "accuracy_low": low,
                "accuracy_high": high,
                "photos": len(rows),
            }
        )
    return bins


def abstention(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return the accuracy on the surest photos alone, for 5 % to 100 % of them answered."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    right = np.cumsum((probabilities.argmax(axis=1) == targets)[order])
    points = []
    for percent in range(5, 101, 5):
        n = -(-len(order) * percent // 100)
        low, high = wilson(int(right[n - 1]), n)
        points.append(
            {
                "answered": n / len(order),
                "accuracy": float(right[n - 1] / n),
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
    found = [
        ece(probabilities, (sums < random.random((len(sums), 1)) * sums[:, -1:]).sum(axis=1))
        for _ in range(DRAWS)
    ]
    return float(np.mean(found))


def per_class(probabilities: Floats, targets: Ints) -> list[dict[str, float]]:
    """Return, for each class, its photos, recall with its 95 % interval, and precision."""
    predicted = probabilities.argmax(axis=1)
    found = []
    for target in range(probabilities.shape[1]):
        own, said = targets == target, predicted == target
        right = int((own & said).sum())
        low, high = wilson(right, int(own.sum()))
        found.append(
            {
                "photos": int(own.sum()),
                "recall": right / max(1, int(own.sum())),
                "recall_low": low,
                "recall_high": high,
                "precision": right / max(1, int(said.sum())),
            }
        )
    return found


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


def summary(probabilities: Floats, targets: Ints) -> dict[str, float | int]:
    """Return all figures of one set of answers."""
    right = probabilities.argmax(axis=1) == targets
    low, high = wilson(int(right.sum()), len(targets))
    truth = np.eye(probabilities.shape[1], dtype=bool)[targets]
    classes = [each for each in per_class(probabilities, targets) if each["photos"]]
    figures: dict[str, float | int] = {
        "accuracy": float(right.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probabilities, targets),
        "brier": brier(probabilities, targets),
        "ece": ece(probabilities, targets),
        "ece_if_perfect": ece_if_perfect(probabilities),
        "auroc": auroc(probabilities.ravel(), truth.ravel()),
        "macro_recall": sum(each["recall"] for each in classes) / len(classes),
        "worst_recall": min(each["recall"] for each in classes),
    }
    if probabilities.shape[1] > TOP:
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
        figures[f"top_{TOP}_accuracy"] = float((top == targets[:, None]).any(axis=1).mean())
    return figures
