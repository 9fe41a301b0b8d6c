import numpy as np
import pytest
from mapie.classification import SplitConformalClassifier
from scipy.stats import beta
from sklearn.base import BaseEstimator, ClassifierMixin

from meadow.inference import conformal


def draw(n: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities, and classes that they are too sure of."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (true.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    odds = np.exp(3 * logits)
    return odds / odds.sum(axis=1, keepdims=True), targets


class Said(ClassifierMixin, BaseEstimator):
    """A classifier for the oracle, whose input is its answer."""

    def __init__(self) -> None:
        self.classes_ = np.arange(3)
        self.is_fitted_ = True

    def fit(self, _x: np.ndarray, _y: np.ndarray) -> "Said":
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.argmax(x, axis=1))

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_the_sets_are_those_of_mapie(coverage: float) -> None:
    """The oracle, with the same score, on the same calibration."""
    probabilities, targets = draw(200)
    new, _ = draw(300, seed=1)
    oracle = SplitConformalClassifier(
        Said(), confidence_level=coverage, conformity_score="lac", prefit=True
    )
    oracle.conformalize(probabilities, targets)
    _, expected = oracle.predict_set(new)
    limit = conformal.threshold(probabilities, targets, coverage)

    assert np.array_equal(conformal.prediction_set(new, limit), expected[:, :, 0])


def test_the_true_class_is_in_the_set_as_often_as_promised() -> None:
    """Over 200 calibrations with 100 photos: the mean, and the published spread around it.

    What one calibration covers follows Beta(n + 1 - l, l), l = floor((n + 1) (1 - coverage)) (Vovk
    2012, arXiv 1209.2673).
    """
    coverages = []
    for seed in range(200):
        probabilities, targets = draw(100, seed=seed)
        new, truth = draw(2000, seed=10_000 + seed)
        limit = conformal.threshold(probabilities, targets, 0.9)
        coverages.append(conformal.prediction_set(new, limit)[np.arange(2000), truth].mean())
    low, high = beta.ppf([0.05, 0.95], 91, 10)

    assert np.mean(coverages) == pytest.approx(0.9, abs=0.01)
    assert 0.82 < np.mean([low <= share <= high for share in coverages]) < 0.97


def test_too_few_photos_for_the_coverage_put_every_class_into_the_set() -> None:
    """No guarantee can be had from 10 photos at 95 %."""
    probabilities, targets = draw(10)
    limit = conformal.threshold(probabilities, targets, 0.95)

    assert conformal.prediction_set(draw(50, seed=1)[0], limit).all()


@pytest.mark.parametrize("n", [19, 30, 200])
def test_of_few_photos_the_next_one_is_held_as_often_as_asked_for(n: int) -> None:
    """A plain quantile of 30 scores would hold 0.935 of the next ones, not 0.95."""
    scores = np.random.default_rng(n).uniform(size=(4000, n + 1))

    held = np.mean([row[-1] <= conformal.quantile(row[:-1], 0.95) for row in scores])

    assert 0.95 - 0.01 <= held <= 0.95 + 1 / (n + 1) + 0.01
    assert conformal.quantile(scores[0, :18], 0.95) == np.inf
