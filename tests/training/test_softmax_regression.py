import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from meadow.training import softmax_regression
from meadow.training.softmax_regression import Floats, log_softmax, solve


def draw(classes: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Draw features and bias, one-hot targets, and six problems: rows that differ, penalties."""
    rng = np.random.default_rng(0)
    targets = np.arange(150) % classes
    x = rng.normal(size=(classes, 30))[targets] + 2 * rng.normal(size=(150, 30))
    held_out = rng.integers(0, 6, 150)[:, None] == np.arange(6)
    shares = np.where(held_out, 0, 1 / (~held_out).sum(axis=0))
    return np.append(x, np.ones((150, 1)), axis=1), np.eye(classes)[targets], shares, L2


L2 = np.array([1.0, 0.3, 0.1, 0.1, 0.03, 0.01])


def objective(weights: Floats, x: Floats, y: Floats, shares: Floats, l2: float) -> float:
    """Return what is minimised, in plain words: mean log-loss + l2/2 |weight|^2."""
    log_loss = -(shares * (y * log_softmax(x @ weights.T, axis=1)).sum(axis=1)).sum()
    return float(log_loss + l2 / 2 * (weights[:, :-1] ** 2).sum())


def oracle(x: Floats, y: Floats, rows: NDArray[np.bool_], l2: float) -> tuple[Floats, Floats]:
    """Return scikit-learn's weights, (classes, d + 1), and its probabilities of all rows.

    Of two classes it penalises one weight, the difference of ours, which is twice as large.
    """
    two = y.shape[1] == 2
    model = LogisticRegression(
        C=(2 if two else 1) / (l2 * rows.sum()), tol=1e-10, max_iter=50_000
    ).fit(x[rows, :-1], y[rows].argmax(axis=1))
    weights = np.append(model.coef_, model.intercept_[:, None], axis=1)
    if two:
        weights = np.concatenate([-weights, weights]) / 2
    return weights, model.predict_proba(x[:, :-1])


@pytest.mark.parametrize("classes", [2, 5])
def test_each_problem_has_the_solution_of_scikit_learn(classes: int) -> None:
    """Objective, weights and probabilities; a solver that stops ten times earlier fails."""
    x, y, shares, l2 = draw(classes)
    solutions = solve(x, y, shares, l2, np.zeros((classes, 31, 6)))

    for i in range(6):
        weights = solutions[..., i].copy()
        weights[:, -1] -= weights[:, -1].mean()  # a bias for all classes changes nothing
        expected, probabilities = oracle(x, y, shares[:, i] > 0, l2[i])
        least = objective(expected, x, y, shares[:, i], l2[i])
        reached = objective(weights, x, y, shares[:, i], l2[i])
        expected[:, -1] -= expected[:, -1].mean()

        assert reached == pytest.approx(least, rel=1e-5)
        assert np.abs(weights - expected).max() < 5e-3 * np.abs(expected).max()
        assert np.exp(log_softmax(x @ weights.T, axis=1)) == pytest.approx(probabilities, abs=1e-3)


def test_a_problem_does_not_feel_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """In groups of one, as when memory is short, each has the same solution."""
    x, y, shares, l2 = draw(3)
    together = solve(x, y, shares, l2, np.zeros((3, 31, 6)))
    monkeypatch.setattr(softmax_regression, "NUMBERS", 1)

    assert solve(x, y, shares, l2, np.zeros((3, 31, 6))) == pytest.approx(together, abs=1e-9)


def test_a_row_that_is_held_out_has_no_say() -> None:
    """Whatever its features and label are."""
    x, y, shares, l2 = draw(2)
    x[0], y[0], shares[0] = 0, y[0, ::-1], 0
    weights = solve(x, y, shares / shares.sum(axis=0), l2, np.zeros((2, 31, 6)))
    without = solve(x[1:], y[1:], (shares / shares.sum(axis=0))[1:], l2, np.zeros((2, 31, 6)))

    assert log_softmax(x @ weights[..., 0].T, axis=1) == pytest.approx(
        log_softmax(x @ without[..., 0].T, axis=1), abs=1e-3
    )


def test_features_that_part_the_classes_do_not_lead_astray() -> None:
    """A flat loss far out: the weights stay finite, and every row is classified correctly."""
    x = np.append(np.linspace(-50, 50, 40)[:, None], np.ones((40, 1)), axis=1)
    y = np.eye(2)[(x[:, 0] > 0).astype(int)]
    weights = solve(x, y, np.full((40, 1), 1 / 40), np.array([1e-6]), np.zeros((2, 2, 1)))

    assert np.isfinite(weights).all()
    assert ((x @ weights[..., 0].T).argmax(axis=1) == y.argmax(axis=1)).all()
