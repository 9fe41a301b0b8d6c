import pytest
from scipy.stats import binomtest

from meadow.pipeline.intervals import wilson


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (50, 60, 0.720, 0.907),
        (77, 80, 0.8955, 0.987),
        (80, 80, 0.954, 1.0),
        (388, 400, 0.948, 0.983),
    ],
)
def test_wilson_interval(hits: int, n: int, low: float, high: float) -> None:
    """Known values, and SciPy's; 80 of 80 is no proof of more than 95.4 %."""
    interval = binomtest(hits, n).proportion_ci(method="wilson")

    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-4)
    assert wilson(hits, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
