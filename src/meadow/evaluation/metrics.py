"""Figures of merit with their uncertainty, from probabilities and the true classes."""

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.intervals import wilson
from meadow.pipeline.probabilities import WHOLE, Floats, Ints, Rows, blocks, likeliest, of_targets

DRAWS = 100  # of labels, for what chance does to the ECE
TOP = 5
BINS = 5  # of equal mass: with 80 photos more bins measure noise (Roelofs 2022, arXiv 2012.08668)


def clipped_log_loss(p_true: Floats) -> Floats:
    """Return -ln(p) of probabilities of the true class, in nats; finite for p = 0 too."""
    losses: Floats = -np.log(np.maximum(p_true, 1e-12))
    return losses


def log_losses(probabilities: Rows, targets: Ints) -> Floats:
    """Return the log-loss of each photo, in nats, (n,)."""
    return clipped_log_loss(of_targets(probabilities, targets))


def log_loss(probabilities: Rows, targets: Ints) -> float:
    """Return the mean of -ln(probability of the true class), in nats."""
    return float(log_losses(probabilities, targets).mean())


def brier(probabilities: Rows, targets: Ints) -> float:
    """Return the mean squared error of the probabilities, halved: 0 is perfect, 1 is the worst.

    Halved, it is the usual (p - y)^2 where there are two classes.
    """
    errors = np.empty(len(targets))
    for part, block in blocks(probabilities):
        difference = block.copy()
        difference[np.arange(len(block)), targets[part]] -= 1
        errors[part] = (difference**2).sum(axis=1)
    return float(errors.mean() / 2)


def reliability(probabilities: Rows, targets: Ints) -> list[dict[str, float]]:
    """Return, for bins of equally many photos by confidence, confidence against accuracy."""
    best, confidence = likeliest(probabilities)
    correct = best == targets
    bins = []
    for rows in _bins(confidence):
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


def _bins(confidence: Floats) -> list[Ints]:
    """Return the places of the photos of each bin."""
    order = np.argsort(confidence, kind="stable")
    return np.array_split(order, min(BINS, len(order)))


def abstention(probabilities: Rows, targets: Ints) -> list[dict[str, float]]:
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


def ece(probabilities: Rows, targets: Ints) -> float:
    """Return the expected calibration error: mean |confidence - accuracy| over the bins."""
    best, confidence = likeliest(probabilities)
    return _gap(_bins(confidence), confidence, best == targets)


def _gap(bins: list[Ints], confidence: Floats, correct: NDArray[np.bool_]) -> float:
    means = ((len(rows), confidence[rows].mean(), correct[rows].mean()) for rows in bins)
    return sum(float(n * abs(sure - right)) for n, sure, right in means) / len(correct)


def ece_if_perfect(probabilities: Rows) -> float:
    """Return the ECE that a perfectly calibrated model of these probabilities would show.

    It is not 0, as the shares of a bin vary by chance: the mean over draws of the true classes from
    the probabilities themselves.
    """
    best, confidence = likeliest(probabilities)
    low, high, total = (np.empty(len(best)) for _ in range(3))  # the likeliest is drawn in between
    for part, block in blocks(probabilities):
        sums, rows = block.cumsum(axis=1), np.arange(len(block))
        high[part], total[part] = sums[rows, best[part]], sums[:, -1]
        low[part] = np.where(best[part] > 0, sums[rows, best[part] - 1], -1)
    random, bins = np.random.default_rng(0), _bins(confidence)
    draws = (random.random(len(total)) * total for _ in range(DRAWS))
    return float(np.mean([_gap(bins, confidence, (low < draw) & (draw <= high)) for draw in draws]))


def per_class(probabilities: Rows, targets: Ints) -> list[dict[str, float]]:
    """Return, for each class, its photos, recall with its 95 % interval, and precision."""
    predicted, classes = likeliest(probabilities)[0], probabilities.shape[1]
    counts = [
        np.bincount(of, minlength=classes).tolist()
        for of in (targets, predicted, targets[predicted == targets])
    ]
    table = []
    for photos, claimed, hits in zip(*counts, strict=True):
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


def roc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return the ROC curve of a score, false and true positive rate from (0, 0) to (1, 1)."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # photos of one score move together
    tpr = np.cumsum(positive[order])[last] / max(1, positive.sum())
    fpr = np.cumsum(~positive[order])[last] / max(1, (~positive).sum())
    return np.append(0.0, fpr), np.append(0.0, tpr)


def micro_roc(probabilities: Rows, targets: Ints) -> tuple[Floats, Floats]:
    """Return the ROC curve in which each class of each photo counts: the micro-average.

    Of more than `WHOLE` probabilities those that agree in 12 binary digits count as equal.
    """
    n, classes = probabilities.shape
    if n * classes <= WHOLE:
        truth = np.eye(classes, dtype=bool)[targets]
        return roc(probabilities[:].ravel(), truth.ravel())
    counts = np.zeros((2, 2**18), np.int64)  # of all, and of the true ones
    for part, block in blocks(probabilities):
        steps = block.astype(np.float32).view(np.int32) >> 12  # 8 bits of exponent, 11 of mantissa
        true = steps[np.arange(len(block)), targets[part]]
        for count, some in zip(counts, (steps.ravel(), true), strict=True):
            count += np.bincount(some, minlength=len(count))
    falling = counts[:, counts[0] > 0][:, ::-1].cumsum(axis=1)
    tpr, fpr = falling[1] / n, (falling[0] - falling[1]) / (n * classes - n)
    return np.append(0.0, fpr), np.append(0.0, tpr)


def auroc(curve: tuple[Floats, Floats]) -> float:
    """Return the area under a ROC curve."""
    fpr, tpr = curve
    return float(np.trapezoid(tpr, fpr))


def set_figures(sizes: Ints, holds: NDArray[np.bool_]) -> dict[str, float]:
    """Return how often prediction sets hold the true class, and their mean size.

    Args:
        sizes: classes in each set, (n,).
        holds: whether the true class is one of them, (n,).

    """
    covered, n = int(holds.sum()), len(holds)
    low, high = wilson(covered, n)
    return {
        "set_coverage": covered / n,
        "set_coverage_low": low,
        "set_coverage_high": high,
        "set_size": float(sizes.mean()),
    }


def answered_figures(
    probabilities: Rows, targets: Ints, sizes: Ints, near: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the share of photos that are answered, and the accuracy on those.

    A photo is answered where exactly one class is in its prediction set and it is in distribution;
    a person is to be asked about the others. Where none is answered, the accuracy lies between 0
    and 1, and has no value.

    Args:
        probabilities: (n, classes).
        targets: class index, (n,).
        sizes: classes in each prediction set, (n,).
        near: whether each photo is in distribution, (n,).

    """
    answered = (sizes == 1) & near
    n = int(answered.sum())
    correct = int((likeliest(probabilities)[0] == targets)[answered].sum())
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


def share_at_accuracy(probabilities: Rows, targets: Ints, accuracy: float) -> float:
    """Return the largest share of photos, the most confident first, with at least this accuracy."""
    correct = _correct_among_surest(probabilities, targets)
    n = np.arange(1, len(correct) + 1)
    return float(np.max(n * (correct >= accuracy * n)) / len(correct))


def _correct_among_surest(probabilities: Rows, targets: Ints) -> Ints:
    """Return how many of the 1 to n most confident answers are correct, (n,)."""
    best, confidence = likeliest(probabilities)
    order = np.argsort(-confidence, kind="stable")
    correct: Ints = np.cumsum((best == targets)[order])
    return correct


def summary(probabilities: Rows, targets: Ints) -> dict[str, float | int]:
    """Return all figures of one set of answers."""
    correct = likeliest(probabilities)[0] == targets
    low, high = wilson(int(correct.sum()), len(targets))
    recalls = [line["recall"] for line in per_class(probabilities, targets) if line["photos"]]
    figures: dict[str, float | int] = {
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": log_loss(probabilities, targets),
        "brier": brier(probabilities, targets),
        "ece": ece(probabilities, targets),
        "ece_if_perfect": ece_if_perfect(probabilities),
        "auroc": auroc(micro_roc(probabilities, targets)),
        "macro_recall": sum(recalls) / len(recalls),
        "worst_recall": min(recalls),
        "share_at_99": share_at_accuracy(probabilities, targets, 0.99),
    }
    if probabilities.shape[1] > TOP:
        figures[f"top_{TOP}_accuracy"] = float(_in_top(probabilities, targets).mean())
    return figures


def _in_top(probabilities: Rows, targets: Ints) -> NDArray[np.bool_]:
    """Return whether fewer than `TOP` classes come before the true one, (n,)."""
    inside = np.empty(len(targets), bool)
    for part, block in blocks(probabilities):
        labels = targets[part][:, None]
        own = np.take_along_axis(block, labels, axis=1)
        before = (block > own) | ((block == own) & (np.arange(block.shape[1]) < labels))
        inside[part] = before.sum(axis=1) < TOP
    return inside
