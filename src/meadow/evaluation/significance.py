"""Two models on the photos that both were tested on: what changed, and what may be chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from meadow.evaluation import metrics
from meadow.evaluation.predictions import Prediction

Pair = tuple[Prediction, Prediction]
CERTAINTY = 0.95
RESAMPLES = 2000  # of the bootstrap


@dataclass(frozen=True)
class Comparison:
    """A new model against an old one.

    Attributes:
        tested: number of photos that the old and the new model were tested on.
        pairs: both answers to each photo that both saw with one label, by path.
        relabelled: number of photos that both saw, but with different labels: not compared.
        level: confidence level of the intervals; above 0.95 where several models are compared.
        accuracy: mean difference, new - old, and its interval (Tango 1998).
        log_loss: likewise, by a paired bootstrap over groups of near-duplicates.
        p_value: of McNemar's exact test, two-sided.
        mended: the pairs that only the new model classifies correctly; its most confident first.
        broken: those that only the old model classified correctly, likewise.

    """

    tested: tuple[int, int]
    pairs: Sequence[Pair]
    relabelled: int
    level: float
    accuracy: tuple[float, float, float]
    log_loss: tuple[float, float, float]
    p_value: float
    mended: Sequence[Pair]
    broken: Sequence[Pair]

    @classmethod
    def of(
        cls, old: Mapping[str, Prediction], new: Mapping[str, Prediction], comparisons: int = 1
    ) -> "Comparison":
        """Compare on the photos, known by their content, that both were tested on.

        Args:
            old: answers by SHA-256.
            new: likewise.
            comparisons: number of comparisons made together (Bonferroni): all their intervals
                hold at once with 0.95.

        """
        common = [(old[key], new[key]) for key in sorted(old.keys() & new.keys())]
        pairs = sorted((p for p in common if p[0].label == p[1].label), key=lambda p: p[1].path)
        level = 1 - (1 - CERTAINTY) / comparisons
        by_confidence = sorted(pairs, key=lambda p: -p[1].confidence)
        mended = [(a, b) for a, b in by_confidence if b.correct and not a.correct]
        broken = [(a, b) for a, b in by_confidence if a.correct and not b.correct]
        accuracy = log_loss = (0.0, -1.0, 1.0)
        if n := len(pairs):
            low, high = paired_interval(len(mended), len(broken), n, level)
            accuracy = ((len(mended) - len(broken)) / n, low, high)
            losses = metrics.clipped_log_loss(np.array([[a.p_label, b.p_label] for a, b in pairs]))
            differences = losses[:, 1] - losses[:, 0]
            low, high = bootstrap(differences, [b.group for _, b in pairs], level)
            log_loss = (float(differences.mean()), low, high)
        return cls(
            tested=(len(old), len(new)),
            pairs=pairs,
            relabelled=len(common) - n,
            level=level,
            accuracy=accuracy,
            log_loss=log_loss,
            p_value=mcnemar(len(mended), len(broken)),
            mended=mended,
            broken=broken,
        )

    @property
    def differs(self) -> bool:
        """Whether the accuracies differ by more than chance."""
        return self.p_value < 1 - self.level

    @property
    def needed(self) -> int:
        """How many photos a model that breaks none must mend to be significantly better."""
        return math.ceil(math.log2(2 / (1 - self.level)) + 1e-9)


def bootstrap(
    differences: NDArray[np.float64], groups: Sequence[str], level: float = CERTAINTY
) -> tuple[float, float]:
    """Return the interval of the mean of differences, (n,); whole groups are drawn."""
    names, place = np.unique(np.array(groups), return_inverse=True)
    sums = np.bincount(place, differences)
    sizes = np.bincount(place)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mcnemar(mended: int, broken: int) -> float:
    """Return the p-value of McNemar's exact test: as many mended as broken, two-sided."""
    from scipy.special import bdtr  # 0.2 s, and evaluate compares no two models

    return min(1.0, 2 * float(bdtr(min(mended, broken), mended + broken, 0.5)))


def paired_interval(mended: int, broken: int, n: int, level: float) -> tuple[float, float]:
    """Return the interval of the difference of two accuracies on the same n photos.

    Tango's score interval (1998, Statistics in Medicine 17): right for few photos too, and not of
    width 0 where the models agree on all of them, as a bootstrap would be.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)

    def score(difference: float) -> float:
        a = 2 * n
        b = -mended - broken + (2 * n - mended + broken) * difference
        c = -broken * difference * (1 - difference)
        share = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
        variance = n * (2 * share + difference * (1 - difference))
        return (mended - broken - n * difference) / math.sqrt(max(variance, 1e-12))

    def end(wanted: float) -> float:
        low, high = -1.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if score(middle) > wanted else (low, middle)
        return (low + high) / 2

    return end(z), end(-z)
