import numpy as np
import pytest
from scipy.stats import binomtest

from meadow.reporting import metadata_leakage
from meadow.reporting.metadata_leakage import TOGETHER, Leak


def check(columns: dict[str, np.ndarray], targets: np.ndarray, classes: int = 2) -> dict[str, Leak]:
    groups = [f"{i:04}" for i in range(len(targets))]
    return {leak.name: leak for leak in metadata_leakage.check(columns, targets, groups, classes)}


def test_a_size_that_gives_the_class_away_is_found() -> None:
    """Alone, together with others, and also where the middle values are one class's."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 400)
    values = random.normal(size=400)
    middle = np.where(targets, values / 10, np.sign(values) * (2 + abs(values)))
    leaks = check({"noise": random.normal(size=400), "size": middle}, targets)

    assert leaks["size"].significant
    assert leaks["size"].accuracy > 0.9
    assert leaks[TOGETHER].significant
    assert not leaks["noise"].significant


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_chance_is_not_taken_for_a_leak(share: float) -> None:
    """Of 30 sets without one at most 4 are warned of; and an uneven set is not a leak."""
    warned = 0
    for seed in range(30):
        random = np.random.default_rng(seed)
        targets = (random.random(200) > share).astype(np.int64)
        columns = {name: random.normal(size=200) for name in "abcde"}
        warned += any(leak.significant for leak in check(columns, targets).values())

    assert warned <= 4


def test_copies_of_a_photo_are_no_leak() -> None:
    """Near-duplicates stay in one fold: what is remembered of one is not asked of the other."""
    targets = (np.arange(10) % 2).repeat(40)
    values = np.random.default_rng(0).normal(size=10).repeat(40)

    def accuracy(copies: int) -> float:
        groups = [f"{i // copies:04}" for i in range(400)]
        leaks = metadata_leakage.check({"size": values}, targets, groups, 2)
        return max(leak.accuracy for leak in leaks)

    assert accuracy(copies=1) > 0.95
    assert accuracy(copies=40) < 0.6


def test_one_value_for_all_says_the_largest_class() -> None:
    """As the format where all photos are JPEG."""
    leaks = check({"format": np.zeros(100)}, (np.arange(100) < 30).astype(np.int64))

    assert leaks["format"].accuracy == leaks["format"].chance == 0.7
    assert not leaks["format"].significant


def test_too_few_photos_are_not_judged() -> None:
    """Rather than badly."""
    assert check({"size": np.arange(8.0)}, np.arange(8) % 2) == {}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4, 0.45])
def test_more_than_chance_is_judged_by_the_exact_binomial_test(share: float) -> None:
    """SciPy's own is the oracle; two things are tried, so each may take half of the 5 %."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 2, 200)
    values = np.where(random.random(200) < share, 1 - targets, targets)
    leak = check({"size": values.astype(np.float64)}, targets)["size"]
    hits = round(leak.accuracy * 200)

    p_value = binomtest(hits, 200, leak.chance, alternative="greater").pvalue
    assert leak.significant is bool(p_value < 0.05 / 2)
