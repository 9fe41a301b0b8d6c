import math

import numpy as np
import pytest
from scipy.stats import binomtest

from meadow.evaluation.predictions import Prediction
from meadow.evaluation.significance import Comparison, bootstrap, mcnemar, paired_interval


def answers(correct: str, label: str = "a", start: int = 0) -> dict[str, Prediction]:
    """Return answers to photos by content; each letter of `correct` is y or n."""
    by_content = {}
    for i, letter in enumerate(correct, start):
        predicted = label if letter == "y" else "other"
        p = 0.9 if letter == "y" else 0.2
        answer = Prediction(f"{i:02}.jpg", f"sha{i}", f"g{i}", label, predicted, 0.9, p)
        by_content[answer.sha256] = answer
    return by_content


def test_what_is_mended_and_what_is_broken() -> None:
    """Each photo that one model alone classifies correctly, and no other."""
    comparison = Comparison.of(answers("yynn"), answers("ynyn"))

    assert [new.path for _, new in comparison.mended] == ["02.jpg"]
    assert [new.path for _, new in comparison.broken] == ["01.jpg"]
    assert comparison.accuracy[0] == 0
    assert not comparison.differs


def test_photos_are_joined_by_content_and_label() -> None:
    """Not by path; a photo that was relabelled in between is no photo that was mended."""
    old, new = answers("nnnn"), answers("yyyy", start=2)
    new["sha3"] = answers("y", label="b", start=3)["sha3"]
    comparison = Comparison.of(old, new)

    assert [p.sha256 for p, _ in comparison.pairs] == ["sha2"]
    assert comparison.relabelled == 1


def test_no_common_photo_says_nothing() -> None:
    """No figure, and no division by 0."""
    comparison = Comparison.of(answers("yy"), answers("yy", start=2))

    assert (comparison.accuracy, comparison.p_value) == ((0, -1, 1), 1)
    assert not comparison.differs


@pytest.mark.parametrize(
    ("mended", "broken", "p"),
    [(0, 0, 1), (1, 1, 1), (5, 0, 0.0625), (6, 0, 0.03125), (2, 8, 112 / 1024)],
)
def test_mcnemar_is_the_two_sided_sign_test(mended: int, broken: int, p: float) -> None:
    """Sums of binomial coefficients, by hand; and SciPy's binomial test."""
    assert mcnemar(mended, broken) == pytest.approx(p)
    if mended + broken:
        oracle = binomtest(mended, mended + broken).pvalue
        assert mcnemar(mended, broken) == pytest.approx(oracle)


def test_six_mended_and_none_broken_are_the_least_that_is_sure() -> None:
    """What the sentence about chance says is what the test does."""
    base = "n" * 6 + "y" * 80
    five, six = (Comparison.of(answers(base), answers("y" * k + base[k:])) for k in (5, 6))

    assert (five.needed, five.differs, six.differs) == (6, False, True)
    several = Comparison.of(answers(base), answers("y" * 86), comparisons=3)
    assert (several.needed, several.differs) == (7, False)


def test_agreement_on_few_photos_is_no_proof_of_equality() -> None:
    """The interval has the closed form z^2 / (n + z^2), where a bootstrap has width 0."""
    z2 = 1.959964**2
    for n in (10, 84):
        low, high = paired_interval(0, 0, n, 0.95)
        assert high == pytest.approx(z2 / (n + z2), abs=1e-6)
        assert low == pytest.approx(-high)


def test_the_interval_covers_as_often_as_it_says() -> None:
    """Exactly, over all outcomes: 40 photos of which a model mends 10 % and breaks 5 %."""
    n, mend, breaks = 40, 0.10, 0.05
    covered = 0.0
    for m in range(16):
        for b in range(16):
            p = (
                math.comb(n, m) * math.comb(n - m, b)
                * mend**m * breaks**b * (1 - mend - breaks) ** (n - m - b)
            )  # fmt: skip
            low, high = paired_interval(m, b, n, 0.95)
            covered += p * (low <= mend - breaks <= high)

    assert covered == pytest.approx(0.95, abs=0.015)


def test_groups_are_drawn_whole() -> None:
    """Ten copies of eight photos are eight photos: the interval is as wide."""
    eight = np.random.default_rng(0).normal(size=8)
    alone = bootstrap(eight, [str(i) for i in range(8)])
    copies = bootstrap(eight.repeat(10), [str(i // 10) for i in range(80)])

    assert copies == pytest.approx(alone)
