"""The head of a probe: softmax regression on frozen features, its penalty chosen, calibrated.

Folds run side by side, one thread each and photos in order: any number of threads gives the same
bytes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from meadow.pipeline.cpu import cores
from meadow.pipeline.hashing import hash_fraction
from meadow.training.calibration import Ints, calibrate, log_softmax
from meadow.training.softmax_regression import Doubles, Singles, TrainingSet, principal_axes

# Strongest first, as each fit starts from the one before; the first that does worse than the one
# before it is the last that is tried.
L2_PATH = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)
WEAKEST = 0.4  # least penalty of the path, times photos: weaker ones win by chance alone
FOLDS = 5
NESTED = 1000  # photos from which choosing flatters the log-loss by a tenth of its standard error
AHEAD = 0.9  # how far a fit starts along the last step of the path: a third of the passes less


@dataclass(frozen=True)
class Head:
    """Logits = features @ weight + bias.

    Attributes:
        weight: (d, classes), already divided by the temperature.
        bias: (classes,), likewise.
        l2: the penalty, for features scaled to a mean variance of 1.
        temperature: what the logits were divided by.
        log_loss: out of fold and before calibration, for each penalty that was tried.
        held_out: log-probabilities of each example by a head that never saw its group, (n,
            classes): the cross-validation.
        as_served: likewise, but with the penalty and the temperature of this head: how sure it is
            of new photos. `held_out` is less sure, as each fold chooses for itself.

    """

    weight: Doubles
    bias: Doubles
    l2: float
    temperature: float
    log_loss: dict[float, float]
    held_out: Singles
    as_served: Singles


@dataclass(frozen=True)
class Examples:
    """Features to learn from.

    Attributes:
        features: (n, d).
        targets: class index, (n,).
        groups: content key of each photo's group of near-duplicates, n; a group is never parted.
        classes: number of classes.

    """

    features: NDArray[np.floating]
    targets: Ints
    groups: Sequence[str]
    classes: int


def fit(examples: Examples, l2: float | None = None, *, workers: int = 0) -> Head:
    """Fit a head on all examples; penalty (unless given) and temperature are chosen out of fold.

    What is judged out of fold must not have been used to choose: the temperature of a fold comes
    from the others, and so, in nested cross-validation, does the penalty. From `NESTED` photos on
    one penalty is chosen for all folds.
    """
    fold = folds(examples.groups, examples.targets, FOLDS)
    order = np.argsort(fold, kind="stable")
    inner = folds(examples.groups, examples.targets, FOLDS, salt="inner")[order]
    fold = fold[order]
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(cores(workers)) as pool,
        tqdm(desc="head", unit="step", delay=2, disable=None) as bar,
    ):
        coordinates, variances, mean, back = principal_axes(examples.features, order, bar.update)
        targets = examples.targets[order]
        photos = TrainingSet(coordinates, variances, targets, examples.classes, bar.update)
        chosen = _choose(photos, fold, L2_PATH if l2 is None else (l2,), pool.map)

        def judge(part: slice) -> Singles:
            if l2 is None and len(fold) < NESTED:
                rest = np.delete(np.arange(len(fold)), part)
                rest = rest[np.argsort(inner[rest], kind="stable")]
                nested = _choose(photos.take(rest), inner[rest], L2_PATH, map)
                return log_softmax(photos.logits(part, nested.weights) / nested.temperature)
            others = np.delete(chosen.logits, part, axis=0)
            return log_softmax(chosen.logits[part] / calibrate(others, np.delete(targets, part)))

        held_out, as_served = np.empty_like(chosen.logits), np.empty_like(chosen.logits)
        held_out[order] = np.concatenate(list(pool.map(judge, _parts(fold))))
        as_served[order] = log_softmax(chosen.logits / chosen.temperature)
    weight = back @ chosen.weights[:-1] / chosen.temperature
    bias = chosen.weights[-1] / chosen.temperature - mean @ weight
    return Head(weight, bias, chosen.l2, chosen.temperature, chosen.log_loss, held_out, as_served)


def folds(groups: Sequence[str], targets: Ints, k: int, salt: str = "") -> Ints:
    """Deal the groups of each class to k folds, in the order of their content's hash: (n,)."""
    place = {group: hash_fraction(f"{salt}{group}", k) for group in groups}
    label = dict(zip(groups, targets, strict=True))
    order = sorted(place, key=lambda group: (label[group], place[group]))
    fold = {group: i % k for i, group in enumerate(order)}
    return np.array([fold[group] for group in groups], np.int64)


@dataclass(frozen=True)
class _Choice:
    """A penalty, and what it gave; the attributes that `Head` has mean the same.

    Attributes:
        weights: of a fit on all photos, (r + 1, classes), the last the biases.
        logits: out of fold, (n, classes).

    """

    weights: Doubles
    l2: float
    temperature: float
    log_loss: dict[float, float]
    logits: Singles


def _choose(
    photos: TrainingSet, fold: Ints, penalties: Sequence[float], run: Callable[..., Any]
) -> _Choice:
    """Choose penalty and temperature by cross-validation, and fit on all photos.

    Args:
        photos: sorted by fold.
        fold: of each photo, (n,).
        penalties: strongest first.
        run: `map`, or the same in threads.

    """
    n, parts = len(fold), _parts(fold)
    others = [[slice(0, part.start), slice(part.stop, n)] for part in parts]
    weights = before = [np.zeros((len(photos.variances) + 1, photos.classes))] * len(parts)
    losses: dict[float, float] = {}
    for l2 in penalties:
        if losses and l2 * n < WEAKEST:
            break
        starts = [new + AHEAD * (new - old) for new, old in zip(weights, before, strict=True)]
        before, weights = weights, list(run(photos.solve, others, repeat(l2), starts))
        tried = np.concatenate(list(map(photos.logits, parts, weights)))
        log_p = log_softmax(tried)[np.arange(n), photos.targets]
        losses[l2] = -float(log_p.mean(dtype=np.float64))
        if losses[l2] > min(losses.values()):
            break
        best, logits, start = l2, tried, np.mean(weights, axis=0)
    final = photos.solve([slice(0, n)], best, start)
    return _Choice(final, best, calibrate(logits, photos.targets), losses, logits)


def _parts(fold: Ints) -> list[slice]:
    """Return where each fold lies among photos that are sorted by it."""
    edges = np.searchsorted(fold, np.arange(fold.max() + 2)).tolist()
    return [slice(*edge) for edge in pairwise(edges)]
