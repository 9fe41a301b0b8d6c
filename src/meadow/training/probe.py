"""The head of a probe: L2-regularised softmax regression on frozen features, calibrated.

All arithmetic is float64, on one thread and in a fixed order, so that the same features give the
same bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from meadow.pipeline.hashing import hash_fraction
from meadow.training.softmax_regression import log_softmax, solve

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Strongest first, as each fit starts from the one before; the first that does worse than the one
# before it is the last that is tried. On photos of lawns 0.1 and 0.03 win.
L2_PATH = (1.0, 0.3, 0.1, 0.03, 0.01)
FOLDS = 5
HELD = -1  # in place of a fold: the example is held out of the whole task


@dataclass(frozen=True)
class Head:
    """Logits = features @ weight + bias.

    Attributes:
        weight: (d, classes), already divided by the temperature.
        bias: (classes,), likewise.
        l2: the penalty, for features scaled to a mean variance of 1.
        temperature: what the logits were divided by (Guo et al. 2017, arXiv 1706.04599).
        log_loss: out of fold and before calibration, for each penalty that was tried.
        held_out: probabilities of each example by a head that never saw its group, (n, classes).

    """

    weight: Floats
    bias: Floats
    l2: float
    temperature: float
    log_loss: dict[float, float]
    held_out: Floats


@dataclass(frozen=True)
class Examples:
    """Features to learn from.

    Attributes:
        features: (n, views, d); a head learns from all views and is judged on the first.
        targets: class index, (n,).
        groups: content key of each photo's group of near-duplicates, n; a group is never parted.
        classes: number of classes.

    """

    features: NDArray[np.floating]
    targets: Ints
    groups: Sequence[str]
    classes: int


def fit(examples: Examples, l2: float | None = None) -> Head:
    """Fit a head on all examples.

    The penalty (unless given) and the temperature are chosen by grouped 5-fold cross-validation.
    """
    with threadpool_limits(1):
        coordinates, mean, back = _rotate(np.asarray(examples.features, np.float64))
        (head,) = _fit(coordinates, examples, folds(examples, FOLDS)[None], l2)
        weight = back @ head.weight
        return replace(head, weight=weight, bias=head.bias - mean @ weight)


def cross_validate(examples: Examples, l2: float | None = None, k: int = FOLDS) -> Floats:
    """Return the probabilities of each example by a head that never saw its group, (n, classes).

    All of the recipe is repeated in each fold, the choice of penalty and temperature included
    (nested cross-validation), so that nothing that is judged was used to choose.
    """
    with threadpool_limits(1):
        coordinates, _, _ = _rotate(np.asarray(examples.features, np.float64))
        outer, inner = folds(examples, k), folds(examples, FOLDS, salt="inner")
        tasks = np.where(outer == np.arange(k)[:, None], HELD, inner)
        logits = np.empty((len(outer), examples.classes))
        for fold, head in enumerate(_fit(coordinates, examples, tasks, l2)):
            held = outer == fold
            logits[held] = coordinates[held, 0] @ head.weight + head.bias
        return softmax(logits)


def folds(examples: Examples, k: int, salt: str = "") -> Ints:
    """Deal the groups of each class to k folds, in the order of their content's hash: (n,)."""
    place = {group: hash_fraction(f"{salt}{group}", k) for group in examples.groups}
    label = dict(zip(examples.groups, examples.targets, strict=True))
    order = sorted(place, key=lambda group: (label[group], place[group]))
    fold = {group: i % k for i, group in enumerate(order)}
    return np.array([fold[group] for group in examples.groups], np.int64)


def calibrate(logits: Floats, targets: Ints) -> float:
    """Return the temperature, 0.05 to 20, that gives logits (n, classes) the least log-loss.

    The targets are smoothed as if each class had been seen once more (Platt 1999): a few photos
    that are all classified correctly do not prove certainty.
    """
    n, classes = logits.shape
    smooth = (np.eye(classes)[targets] * n + 1) / (n + classes)
    cold, hot = -3.0, 3.0
    for _ in range(25):  # halvings: the log-loss is convex in 1/temperature
        middle = (cold + hot) / 2
        too_sure = softmax(logits / np.exp(middle)) - smooth
        cold, hot = (middle, hot) if np.sum(too_sure * logits) > 0 else (cold, middle)
    return float(np.exp((cold + hot) / 2))


def softmax(logits: Floats) -> Floats:
    """Return the probabilities that logits (n, classes) stand for."""
    probabilities: Floats = np.exp(log_softmax(logits, axis=1))
    return probabilities


def _fit(coordinates: Floats, examples: Examples, tasks: Ints, l2: float | None) -> list[Head]:
    """Choose penalty and temperature and fit, for each task; the heads are for coordinates.

    Args:
        coordinates: (n, views, d).
        examples: their targets.
        tasks: each example's inner fold in each task, or `HELD`, (tasks, n).
        l2: None to choose it.

    """
    n, views, d = coordinates.shape
    x = np.append(coordinates.reshape(n * views, d), np.ones((n * views, 1)), axis=1)
    y = np.eye(examples.classes)[examples.targets.repeat(views)]
    problem = _Problem(x, y, examples.targets, views)
    searches = _search(problem, tasks, L2_PATH if l2 is None else [l2])
    penalties = np.array([search.l2 for search in searches])
    start = np.stack([search.weights for search in searches], axis=2)
    final = problem.solve(tasks != HELD, penalties, start)
    heads = []
    for task, search, weights in zip(tasks, searches, np.moveaxis(final, 2, 0), strict=True):
        inside = task != HELD
        logits = search.held_out[inside]
        temperature = calibrate(logits, examples.targets[inside])
        weight, bias = weights[:, :-1].T / temperature, weights[:, -1] / temperature
        probabilities = softmax(logits / temperature)
        heads.append(Head(weight, bias, search.l2, temperature, search.log_loss, probabilities))
    return heads


@dataclass(frozen=True)
class _Problem:
    """What all fits share: rows x (n views, d + 1) and y (n views, classes), and n targets."""

    x: Floats
    y: Floats
    targets: Ints
    views: int

    def solve(self, learned: NDArray[np.bool_], penalties: Floats, start: Floats) -> Floats:
        """Fit one head for each row of `learned`, (fits, n): the examples that it learns from."""
        shares = learned.repeat(self.views, axis=1).T / (self.views * learned.sum(axis=1))
        return solve(self.x, self.y, shares, penalties, start)


@dataclass
class _Search:
    """The penalties that a task has tried, and what the best of them gave.

    Attributes:
        log_loss: out of fold, by penalty.
        l2: the best penalty.
        held_out: its logits of each example, by the head of the other folds, (n, classes).
        weights: the mean of its heads of all folds, (classes, d + 1).

    """

    log_loss: dict[float, float]
    l2: float
    held_out: Floats
    weights: Floats


def _search(problem: _Problem, tasks: Ints, penalties: Sequence[float]) -> list[_Search]:
    """Try penalties, strongest first, for each task until one does worse than the one before."""
    n, classes, width = len(problem.targets), problem.y.shape[1], problem.x.shape[1]
    learned = (tasks != HELD) & (tasks != np.arange(FOLDS)[:, None, None])  # (folds, tasks, n)
    weights = np.zeros((classes, width, FOLDS, len(tasks)))
    nothing = np.empty(0)
    searches = [_Search({}, 0.0, nothing, nothing) for _ in tasks]
    going = np.arange(len(tasks))
    for penalty in penalties:
        rows = learned[:, going].reshape(-1, n)
        start = weights[..., going].reshape(classes, width, -1)
        fitted = problem.solve(rows, np.full(len(rows), penalty), start)
        weights[..., going] = fitted.reshape(classes, width, FOLDS, -1)
        logits = (problem.x[:: problem.views] @ fitted).reshape(classes, n, FOLDS, -1)
        better = np.zeros(len(going), bool)
        for i, task in enumerate(going.tolist()):
            inside, search = tasks[task] != HELD, searches[task]
            held_out = logits[:, np.arange(n), tasks[task], i].T
            loss = _log_loss(held_out[inside], problem.targets[inside])
            better[i] = loss < min(search.log_loss.values(), default=np.inf)
            search.log_loss[penalty] = loss
            if better[i]:
                search.l2, search.held_out = penalty, held_out
                search.weights = weights[..., task].mean(axis=2)
        going = going[better]  # where it was worse, weaker penalties would only do worse yet
        if not len(going):
            break
    return searches


def _log_loss(logits: Floats, targets: Ints) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(targets)), targets].mean())


def _rotate(features: Floats) -> tuple[Floats, Floats, Floats]:
    """Centre, scale and rotate features to as few coordinates as they span.

    With fewer photos than features that makes a fit several times faster; an L2 penalty does not
    see a rotation. One scale for all features, not one each: measured on the 400 photos, log-loss
    0.102 against 0.109.

    Returns:
        Coordinates (n, views, r), the mean (d,), and `back` (d, r): a weight in coordinates, (r,
        classes), is `back @ weight` for features.

    """
    n, views, d = features.shape
    x = features.reshape(n * views, d)
    mean = x.mean(axis=0)
    x = x - mean
    scale = np.sqrt(np.mean(x**2)) or 1.0
    x /= scale
    if len(x) >= d:
        return x.reshape(n, views, d), mean, np.eye(d) / scale
    values, vectors = np.linalg.eigh(x @ x.T)
    kept = values > 1e-9 * values[-1]
    values, vectors = values[kept], vectors[:, kept]
    coordinates = vectors * np.sqrt(values)
    back = x.T @ (vectors / np.sqrt(values)) / scale
    return coordinates.reshape(n, views, -1), mean, back
