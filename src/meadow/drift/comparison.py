"""Whether what a tally counted is like the reference: a test for each signal, and one for all.

Each signal has a two-sample Kolmogorov-Smirnov test, the predicted classes a chi-square test, the
share of far photos Fisher's exact test, and all signals but side and bytes together the maximum
mean discrepancy (Gretton 2012, JMLR 13:723) by permutation. Holm's correction holds for all that
may raise an alarm: where nothing has changed, one comparison in 100 does. Since when is told where
the answers before and after a time surely differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import chi2_contingency, hypergeom, kstwo

from meadow.drift.tally import Counts, Tally
from meadow.inference.reference import Reference
from meadow.inference.signals import HARMLESS, SIGNALS

ALPHA = 0.01  # chance of an alarm where nothing has changed
LEAST = 30  # answers; fewer say nothing
FAR = 0.1  # share of the reference that counts as far
PERMUTATIONS = 2000
EXPECTED = 5  # answers of a class, for the chi-square test; rarer classes count as one
RESAMPLED = 200  # for the interval of the classes' shares
FEW_CLASSES = 20  # up to which it is computed
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Finding:
    """What one test says.

    Attributes:
        name: of a signal, `far`, `predicted`, or `together`.
        p: of the test, corrected for their number.
        size: of the difference: Kolmogorov's distance, or that of the shares; 0 to 1.
        before, after: medians of a signal, in the reference and in the answers; shares of far
            photos; 0 of others.
        since: time of the first answer that differs; "" where it is not known or all do.

    """

    name: str
    p: float
    size: float
    before: float
    after: float
    since: str

    @property
    def changed(self) -> bool:
        """Whether it is more than chance."""
        return self.p < ALPHA

    @property
    def alarm(self) -> bool:
        """Whether somebody should look."""
        return self.changed and self.name not in HARMLESS


@dataclass(frozen=True)
class Share:
    """What part of the photos shows a class: as labelled in the reference, and as estimated now.

    The interval, 95 %, is that of the estimate; NaN where there are many classes.
    """

    before: float
    after: float
    low: float
    high: float


def compare(tally: Tally, reference: Reference) -> list[Finding]:
    """Return one finding a test, the surest first; none where there are too few answers."""
    if tally.total < LEAST:
        return []
    measured = [name for name in reference.signals if tally.counts[name].sum() >= LEAST]
    raw = [_signal(tally, reference, name) for name in measured]
    raw += [test(tally, reference) for test in (_far, _predicted, _together)]
    harmless = [finding for finding in raw if finding.name in HARMLESS]
    corrected = _corrected([finding for finding in raw if finding not in harmless])
    corrected += _corrected(harmless)
    dated = [
        replace(f, since=_since(tally.counts.get(f.name), tally.times)) if f.changed else f
        for f in corrected
    ]
    return sorted(dated, key=lambda finding: finding.p)


def _corrected(findings: Sequence[Finding]) -> list[Finding]:
    """Correct the p-values for their number (Holm)."""
    corrected, least = [], 0.0
    for rank, finding in enumerate(sorted(findings, key=lambda finding: finding.p)):
        least = max(least, min(1.0, (len(findings) - rank) * finding.p))
        corrected.append(replace(finding, p=least))
    return corrected


def ks_test(first: Counts, second: Counts) -> tuple[float, float]:
    """Return Kolmogorov's distance of two samples, counted in the same cells, and its p-value."""
    n, m = first.sum(), second.sum()
    distance = float(np.abs(np.cumsum(first) / n - np.cumsum(second) / m).max())
    return distance, float(kstwo.sf(distance, max(1, np.round(n * m / (n + m)))))


def mmd_test(first: Floats, second: Floats, seed: int = 0) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of two samples, (n, d) and (m, d), and its p.

    The kernel is Gaussian, as wide as the median distance.
    """
    points = np.concatenate([first, second]).astype(np.float32)
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)
    kernel = np.exp(-distances / (np.median(distances[distances > 0]) or 1))
    signs = np.concatenate(
        [np.full(len(first), 1 / len(first)), np.full(len(second), -1 / len(second))]
    )
    random = np.random.default_rng(seed)
    dealt = np.tile(signs.astype(np.float32), (1 + PERMUTATIONS, 1))  # the first stays as it is
    dealt[1:] = random.permuted(dealt[1:], axis=1)
    found, *by_chance = np.einsum("ij,ij->i", dealt @ kernel, dealt)
    return float(found), float((1 + (by_chance >= found).sum()) / (1 + PERMUTATIONS))


def shares(tally: Tally, reference: Reference) -> list[Share]:
    """Estimate what part of the photos shows each class (BBSE, Lipton 2018, arXiv 1802.03916).

    It corrects the shares of the answers by how often each class is taken for each other one, which
    holds as long as photos of one class still look as they did.
    """
    answered = tally.counts["predicted"].sum(axis=0)
    classes = len(answered)
    after = _bbse(reference.predicted, reference.actual, answered)
    low = high = np.full(classes, np.nan)
    if classes <= FEW_CLASSES:
        random = np.random.default_rng(0)
        drawn = []
        for _ in range(RESAMPLED):
            photos = random.integers(0, len(reference.actual), len(reference.actual))
            counts = random.multinomial(tally.total, answered / tally.total)
            drawn.append(_bbse(reference.predicted[photos], reference.actual[photos], counts))
        low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    before = np.bincount(reference.actual, minlength=classes) / len(reference.actual)
    return [Share(*map(float, row)) for row in zip(before, after, low, high, strict=True)]


def _bbse(predicted: NDArray[np.int64], actual: NDArray[np.int64], counts: Counts) -> Floats:
    classes = len(counts)
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (predicted, actual), 1)
    confusion /= np.maximum(confusion.sum(axis=0), 1)
    weights, _ = nnls(confusion, counts / counts.sum())
    return np.asarray(weights / (weights.sum() or 1))


def _signal(tally: Tally, reference: Reference, name: str) -> Finding:
    known = tally.cells(name, reference.signals[name])
    seen = tally.counts[name].sum(axis=0)
    distance, p = ks_test(known, seen)
    edges = tally.edges[name]
    medians = [
        float(
            edges[
                min(int(np.searchsorted(np.cumsum(counts), counts.sum() / 2)) // 2, len(edges) - 1)
            ]
        )
        for counts in (known, seen)
    ]
    return Finding(name, p, distance, medians[0], medians[1], "")


def _far(tally: Tally, reference: Reference) -> Finding:
    """Look at the end of the distances alone: a few photos of something else hardly move the rest.

    The share that is as far as the farthest of the reference, one-sided.
    """
    known = tally.cells("distance", reference.signals["distance"])
    seen = tally.counts["distance"].sum(axis=0)
    n, m = int(seen.sum()), int(known.sum())
    beyond = known.sum() - np.cumsum(known)  # photos of the reference beyond each cell
    cell = int(np.argmax(beyond <= FAR * m))
    far_known, far_seen = int(beyond[cell]), int(seen[cell + 1 :].sum())
    p = float(hypergeom.sf(far_seen - 1, n + m, far_known + far_seen, n))
    before, after = far_known / m, far_seen / n
    return Finding("far", p, abs(after - before), before, after, "")


def _predicted(tally: Tally, reference: Reference) -> Finding:
    seen = tally.counts["predicted"].sum(axis=0)
    known = np.bincount(reference.predicted, minlength=len(seen))
    table = np.stack([known, seen])
    expected = table.sum(axis=0) * (table.sum(axis=1) / table.sum())[:, None]
    rare = (expected < EXPECTED).any(axis=0)
    table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    p = float(chi2_contingency(table, correction=False).pvalue) if table.shape[1] > 1 else 1.0
    size = float(np.abs(known / known.sum() - seen / seen.sum()).sum() / 2)
    return Finding("predicted", p, size, 0, 0, "")


def _together(tally: Tally, reference: Reference) -> Finding:
    lacking = {name for name, values in zip(SIGNALS, tally.sample.T, strict=True)
               if np.isnan(values).any()}  # fmt: skip
    names = [name for name in reference.signals if name not in {*HARMLESS, *lacking}]
    known = np.stack([reference.signals[name] for name in names], axis=1)
    if len(known) > len(tally.sample):  # as many of both are enough
        known = known[
            np.random.default_rng(0).permutation(len(known))[: max(len(tally.sample), 200)]
        ]
    sample = tally.sample[:, [SIGNALS.index(name) for name in names]]
    for values in (known, sample):  # spread out what lies near 1
        confidence = values[:, names.index("confidence")]
        confidence[:] = -np.log(1.0001 - confidence)
    middle = np.median(known, axis=0)
    spread = np.subtract(*np.quantile(known, [0.75, 0.25], axis=0))
    spread[spread == 0] = 1
    first, second = (np.clip((values - middle) / spread, -4, 4) for values in (known, sample))
    size, p = mmd_test(first, second)
    return Finding("together", p, size, 0, 0, "")


def _since(counts: Counts | None, times: Sequence[str]) -> str:
    """Return when the answers changed; "" where those before are not surely others."""
    if counts is None:
        return ""
    counts = counts[: len(times)]
    before = np.cumsum(counts, axis=0)[:-1]
    after = counts.sum(axis=0) - before
    n, m = before.sum(axis=1), after.sum(axis=1)
    # A part in which no event has the signal says nothing.
    shares = np.cumsum(before, 1) / np.maximum(n, 1)[:, None]
    distances = np.abs(shares - np.cumsum(after, 1) / np.maximum(m, 1)[:, None]).max(1)
    sure = distances * np.sqrt(n * m / np.maximum(n + m, 1))
    best = int(sure.argmax()) if len(sure) else 0
    chance = 2 * np.exp(-2 * sure[best] ** 2) * len(sure) if len(sure) else 1.0
    return times[best + 1] if chance < ALPHA else ""
