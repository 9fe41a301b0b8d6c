"""The head of a probe: softmax regression on frozen features, its penalty chosen, calibrated.

Folds run side by side, one thread each; in a large set they run one after another, and blocks of
photos side by side. What is summed is summed in order: any number of threads gives the same bytes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from meadow.pipeline import probabilities
from meadow.pipeline.cpu import cores
from meadow.pipeline.hashing import hash_fraction
from meadow.pipeline.parallel import in_order
from meadow.pipeline.probabilities import WHOLE
from meadow.training.calibration import Ints, calibrate, log_softmax
from meadow.training.softmax_regression import (
    MANY,
    Doubles,
    Map,
    Singles,
    TrainingSet,
    in_blocks,
    principal_axes,
)

# Strongest first, as each fit starts from the one before; the first that does worse than the one
# before it is the last that is tried.
L2_PATH: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)
WEAKEST = 0.4  # least penalty of the path, times photos: weaker ones win by chance alone
FOLDS = 5
NESTED = 1000  # photos from which choosing flatters the log-loss by a tenth of its standard error
CROWD = 2**16  # photos of which more are a large set, as more than `MANY` weights are
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
        held_out: log-probabilities of each example by a head that never saw its group, as
            `probabilities.store` keeps them: the cross-validation.
        as_served: likewise, but with the penalty and the temperature of this head: how sure it is
            of new photos. `held_out` is less sure, as each fold chooses for itself.

    """

    weight: Doubles
    bias: Doubles
    l2: float
    temperature: float
    log_loss: dict[float, float]
    held_out: NDArray[Any]
    as_served: NDArray[Any]


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
    n, classes = len(examples.targets), examples.classes
    nested = l2 is None and n < NESTED
    fold = folds(examples.groups, examples.targets, FOLDS)
    order = np.argsort(fold, kind="stable")
    if nested:
        inner = folds(examples.groups, examples.targets, FOLDS, salt="inner")[order]
    fold = fold[order]
    threads = cores(workers)
    with (
        threadpool_limits(1),
        ThreadPoolExecutor(threads) as pool,
        tqdm(desc="head", unit="step", delay=2, disable=None) as bar,
    ):
        side_by_side: Map = partial(in_order, pool, window=threads + 2)
        coordinates, variances, mean, back = principal_axes(
            examples.features, order, bar.update, side_by_side
        )
        targets = examples.targets[order]
        large = n > CROWD or len(back.T) * classes > MANY
        by_fold, by_block = (map, side_by_side) if large else (side_by_side, map)
        photos = TrainingSet(coordinates, variances, targets, classes, bar.update, by_block)
        chosen = _choose(photos, fold, L2_PATH if l2 is None else (l2,), by_fold)

        held_out, as_served = (probabilities.room(n, classes) for _ in range(2))

        def judge(k: int) -> None:
            part, weights = _parts(fold)[k], chosen.without[k]
            if nested:
                rest = np.delete(np.arange(n), part)
                rest = rest[np.argsort(inner[rest], kind="stable")]
                choice = _choose(photos.take(rest), inner[rest], L2_PATH, map)
                _answer(photos, part, choice.weights, choice.temperature, order, held_out)
            else:
                others = (chosen.sample < part.start) | (chosen.sample >= part.stop)
                temperature = calibrate(
                    chosen.logits[others],
                    targets[chosen.sample[others]],
                    n - (part.stop - part.start),
                )
                _answer(photos, part, weights, temperature, order, held_out)
            _answer(photos, part, weights, chosen.temperature, order, as_served)

        for _ in by_fold(judge, range(len(chosen.without))):
            pass
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
        without: weights of a fit without the photos of each fold, likewise.
        sample: places of photos that chose the temperature, (m,); all where they are few.
        logits: of these, out of fold, (m, classes).

    """

    weights: Doubles
    without: Sequence[Doubles]
    l2: float
    temperature: float
    log_loss: dict[float, float]
    sample: Ints
    logits: Singles


def _choose(photos: TrainingSet, fold: Ints, penalties: Sequence[float], by_fold: Map) -> _Choice:
    """Choose penalty and temperature by cross-validation, and fit on all photos.

    Args:
        photos: sorted by fold.
        fold: of each photo, (n,).
        penalties: strongest first.
        by_fold: works on the folds.

    """
    n, parts = len(fold), _parts(fold)
    sample = np.arange(0, n, -(-n * photos.classes // WHOLE))
    weights = before = [np.zeros((len(photos.variances) + 1, photos.classes))] * len(parts)
    losses: dict[float, float] = {}

    def fit(k: int) -> Doubles:
        others = [slice(0, parts[k].start), slice(parts[k].stop, n)]
        return photos.solve(others, l2, weights[k] + AHEAD * (weights[k] - before[k]))

    for l2 in penalties:
        if losses and l2 * n < WEAKEST:
            break
        before, weights = weights, list(by_fold(fit, range(len(parts))))
        log_p, tried = _out_of_fold(photos, parts, weights, sample)
        losses[l2] = -float(log_p.mean(dtype=np.float64))
        if losses[l2] > min(losses.values()):
            break
        best, chosen, kept = l2, tried, weights
    final = photos.solve([slice(0, n)], best, sum(kept[1:], kept[0]) / len(kept))
    temperature = calibrate(chosen, photos.targets[sample], n)
    return _Choice(final, kept, best, temperature, losses, sample, chosen)


def _out_of_fold(
    photos: TrainingSet, parts: Sequence[slice], weights: Sequence[Doubles], sample: Ints
) -> tuple[Singles, Singles]:
    """Judge each part of n photos by its weights.

    Returns:
        Log-probabilities of the labels, (n,), and the logits of the sample, (m, classes).

    """
    log_p = np.empty(len(photos.targets), np.float32)
    tried = np.empty((len(sample), photos.classes), np.float32)

    def judge(block: slice, weights: Doubles) -> None:
        logits = photos.logits(block, weights)
        log_p[block] = log_softmax(logits)[np.arange(len(logits)), photos.targets[block]]
        first, last = np.searchsorted(sample, [block.start, block.stop])
        tried[first:last] = logits[sample[first:last] - block.start]

    for part, new in zip(parts, weights, strict=True):
        _go_through(photos, part, partial(judge, weights=new))
    return log_p, tried


def _answer(
    photos: TrainingSet,
    part: slice,
    weights: Doubles,
    divisor: float,
    order: Ints,
    into: NDArray[Any],
) -> None:
    """Write the log-probabilities of a part as `probabilities.store` keeps them.

    Args:
        photos: n.
        part: of these.
        weights: (r + 1, classes).
        divisor: of the logits.
        order: place of each photo in `into`, (n,).
        into: of `probabilities.room`.

    """

    def answer(block: slice) -> None:
        log_p = log_softmax(photos.logits(block, weights) / divisor)
        into[order[block]] = probabilities.store(log_p, photos.targets[block], like=into)

    _go_through(photos, part, answer)


def _go_through(photos: TrainingSet, part: slice, work: Callable[[slice], None]) -> None:
    """Work on a part of the photos, all of it at once where all are few, else in blocks."""
    few = len(photos.targets) * photos.classes <= WHOLE
    for _ in photos.run(work, [part] if few else in_blocks(part)):
        pass


def _parts(fold: Ints) -> list[slice]:
    """Return where each fold lies among photos that are sorted by it."""
    edges = np.searchsorted(fold, np.arange(fold.max() + 2)).tolist()
    return [slice(*edge) for edge in pairwise(edges)]
