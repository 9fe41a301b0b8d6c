"""Two models on the photos that both were tested on: what one mends, what it breaks, and chance."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from meadow.evaluation import gate


@dataclass(frozen=True)
class Prediction:
    """What a model said of a test photo.

    Attributes:
        path: of the photo, in the set's folder at that time.
        sha256: of its file.
        group: content key of its group of near-duplicates.
        label: its class.
        predicted: the class that the model gave it.
        confidence: the probability of that class.
        p_label: the probability of `label`.

    """

    path: str
    sha256: str
    group: str
    label: str
    predicted: str
    confidence: float
    p_label: float

    @property
    def right(self) -> bool:
        """Whether the model said what the label says."""
        return self.label == self.predicted


Pair = tuple[Prediction, Prediction]
CERTAINTY = 0.95


@dataclass(frozen=True)
class Comparison:
    """A new model against an old one.

    Attributes:
        seen: photos that each was judged on.
        pairs: both answers to each photo that both saw with one label, by path.
        relabelled: photos that both saw, but with different labels: not compared.
        level: what the intervals hold with; above 0.95 where several models are compared.
        accuracy: mean difference, new - old, and its interval (Tango 1998).
        log_loss: likewise, by a paired bootstrap over groups of near-duplicates.
        p_value: of McNemar's exact test, two-sided.

    """

    seen: tuple[int, int]
    pairs: Sequence[Pair]
    relabelled: int
    level: float
    accuracy: tuple[float, float, float]
    log_loss: tuple[float, float, float]
    p_value: float

    @classmethod
    def of(
        cls, old: Mapping[str, Prediction], new: Mapping[str, Prediction], among: int = 1
    ) -> "Comparison":
        """Compare on the photos, known by their content, that both were tested on.

        Args:
            old: answers by SHA-256.
            new: likewise.
            among: number of comparisons made together (Bonferroni): all their intervals hold at
                once with 0.95.

        """
        both = [(old[key], new[key]) for key in sorted(old.keys() & new.keys())]
        pairs = sorted((p for p in both if p[0].label == p[1].label), key=lambda p: p[1].path)
        level = 1 - (1 - CERTAINTY) / among
        mended, broken = _count(pairs, mended=True), _count(pairs, mended=False)
        n = len(pairs)
        accuracy = log_loss = (0.0, -1.0, 1.0)
        if pairs:
            low, high = paired_interval(mended, broken, n, level)
            accuracy = ((mended - broken) / n, low, high)
            losses = np.array([[_loss(a), _loss(b)] for a, b in pairs])
            differences = losses[:, 1] - losses[:, 0]
            low, high = gate.bootstrap(differences, [b.group for _, b in pairs], level)
            log_loss = (float(differences.mean()), low, high)
        seen = len(old), len(new)
        return cls(seen, pairs, len(both) - n, level, accuracy, log_loss, mcnemar(mended, broken))

    @property
    def mended(self) -> list[Pair]:
        """What only the new model labels rightly; where it is surest first."""
        return sorted(
            (p for p in self.pairs if p[1].right and not p[0].right),
            key=lambda p: (-p[1].confidence, p[1].path),
        )

    @property
    def broken(self) -> list[Pair]:
        """What only the old model labelled rightly; where the new one is surest first."""
        return sorted(
            (p for p in self.pairs if p[0].right and not p[1].right),
            key=lambda p: (-p[1].confidence, p[1].path),
        )

    @property
    def differs(self) -> bool:
        """Whether the accuracies differ by more than chance."""
        return self.p_value < 1 - self.level

    @property
    def needed(self) -> int:
        """How many photos a model that breaks none must mend to be surely better."""
        return math.ceil(math.log2(2 / (1 - self.level)) + 1e-9)


def mcnemar(mended: int, broken: int) -> float:
    """Return the p-value of McNemar's exact test: as many mended as broken, two-sided."""
    n, few = mended + broken, min(mended, broken)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(few + 1)) / (1 << n))


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


def _count(pairs: Sequence[Pair], *, mended: bool) -> int:
    return sum(b.right == mended and a.right != mended for a, b in pairs)


def _loss(answer: Prediction) -> float:
    return -math.log(max(answer.p_label, 1e-12))
