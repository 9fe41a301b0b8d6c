import numpy as np
import pytest

from meadow.training.calibration import calibrate, cross_fitted, log_softmax


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


def test_a_photo_does_not_choose_the_epoch_that_it_is_judged_by() -> None:
    """Of two epochs each is sure and right on one fold, and wrong on the other."""
    sure = np.where(np.eye(2)[[0, 1, 0, 1]] > 0, 3.0, -3.0)
    first = sure * [[1], [1], [-1], [-1]]
    targets, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    log_p = cross_fitted(np.stack([first, -first]), targets, fold, None)

    assert (np.exp(log_p)[range(4), targets] < 0.5).all()


def test_a_known_temperature_is_not_chosen_again() -> None:
    """That of a probe, whose folds have found it."""
    logits = np.array([[[1.0, 0], [0, 2], [3, 0], [0, 4]]])
    log_p = cross_fitted(logits, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), 2.0)

    assert log_p == pytest.approx(log_softmax(logits[0] / 2))


def test_what_was_cross_fitted_looks_no_surer_than_new_photos() -> None:
    """Of 40 epochs that learned nothing the best seems to know something; cross-fitted, nothing."""
    rng = np.random.default_rng(0)
    seeming, held_out = [], []
    for _ in range(50):
        logits, targets = rng.normal(size=(40, 30, 2)), rng.integers(0, 2, 30)
        losses = [-log_softmax(epoch)[range(30), targets].mean() for epoch in logits]
        best = logits[np.argmin(losses)]
        calibrated = log_softmax(best / calibrate(best, targets))
        seeming.append(-calibrated[range(30), targets].mean())
        log_p = cross_fitted(logits, targets, np.arange(30) % 5, None)
        held_out.append(-log_p[range(30), targets].mean())

    assert np.mean(seeming) < 0.66 < np.log(2) <= np.mean(held_out)
