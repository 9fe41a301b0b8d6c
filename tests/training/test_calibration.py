import numpy as np
import pytest

from meadow.training.calibration import calibrate, log_softmax


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_calibration_finds_the_temperature(true: float) -> None:
    """Labels drawn from softmax(logits): logits scaled by t are brought back by t."""
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(20_000, 3))
    p = np.exp(log_softmax(logits))
    targets = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)

    assert calibrate(logits * true, targets) == pytest.approx(true, rel=0.05)


def test_a_few_right_answers_do_not_prove_certainty() -> None:
    """30 photos without a mistake: the temperature stays far from its lower end."""
    logits = np.where(np.eye(2)[np.arange(30) % 2] > 0, 2.0, -2.0)

    assert calibrate(logits, np.arange(30) % 2) > 0.5


def test_log_probabilities_of_sure_answers_stay_finite() -> None:
    """Logits as far apart as float32 holds; their probabilities still sum to 1."""
    log_p = log_softmax(np.array([[3e38, 0.0, -1.0], [2.0, 2.0, 2.0]], np.float32))

    assert np.isfinite(log_p).all()
    assert np.exp(log_p).sum(axis=1) == pytest.approx(1)
