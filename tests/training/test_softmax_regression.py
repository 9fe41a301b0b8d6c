import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meadow.training import softmax_regression
from meadow.training.calibration import log_softmax
from meadow.training.softmax_regression import Doubles, TrainingSet, principal_axes


def draw(classes: int, d: int = 30) -> TrainingSet:
    """Draw 150 photos around random centres, some axes 30 times as wide as others."""
    rng = np.random.default_rng(0)
    targets = np.arange(150) % classes
    centres = rng.normal(size=(classes, d))[targets]
    features = (centres + 2 * rng.normal(size=(150, d))) * np.geomspace(1, 30, d)
    coordinates, variances, _, _ = principal_axes(features, np.arange(150), int)
    return TrainingSet(coordinates, variances, targets, classes, step=int)


def oracle(photos: TrainingSet, rows: slice, l2: float) -> tuple[float, Doubles]:
    """Return scikit-learn's least objective on some photos, and its probabilities of all.

    Of two classes it penalises one weight, the difference of ours, which is twice as large.
    """
    x, y = photos.coordinates[rows].astype(np.float64), photos.targets[rows]
    penalty = l2 / 2 if photos.classes == 2 else l2
    model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-10, max_iter=50_000).fit(x, y)
    log_loss = -model.predict_log_proba(x)[np.arange(len(x)), y].mean()
    probabilities = model.predict_proba(photos.coordinates.astype(np.float64))
    return log_loss + penalty / 2 * (model.coef_**2).sum(), probabilities


def objective(photos: TrainingSet, rows: slice, l2: float, weights: Doubles) -> float:
    """Return what is minimised, in plain words: mean log-loss + l2/2 |weight|^2."""
    x, y = photos.coordinates[rows], photos.targets[rows]
    log_p = log_softmax(x @ weights[:-1] + weights[-1])
    return float(-log_p[np.arange(len(y)), y].mean() + l2 / 2 * (weights[:-1] ** 2).sum())


def solve(photos: TrainingSet, rows: slice, l2: float) -> Doubles:
    return photos.solve([rows], l2, np.zeros((len(photos.variances) + 1, photos.classes)))


@pytest.mark.parametrize("l2", [1.0, 0.1, 0.01])
@pytest.mark.parametrize(("classes", "d"), [(2, 30), (5, 30), (3, 400), (2, 400)])
def test_it_has_the_solution_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, classes: int, d: int, l2: float
) -> None:
    """Objective and probabilities, as far as float32 goes; and nearly so when it stops as usual."""
    photos, rows = draw(classes, d), slice(0, 120)
    least, probabilities = oracle(photos, rows, l2)
    usual = solve(photos, rows, l2)
    monkeypatch.setattr(softmax_regression, "TOLERANCE", 1e-12)
    weights = solve(photos, rows, l2)
    logits = photos.logits(slice(0, 150), weights)

    assert objective(photos, rows, l2, weights) == pytest.approx(least, rel=1e-7, abs=5e-8)
    assert np.exp(log_softmax(logits)) == pytest.approx(probabilities, abs=1e-3)
    assert objective(photos, rows, l2, usual) == pytest.approx(least, abs=3e-5)


def test_blocks_and_parts_change_nothing_but_the_last_digits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of photos in blocks of 7, learned from in two parts, each counts once."""
    photos = draw(3)
    start = np.zeros((len(photos.variances) + 1, 3))
    monkeypatch.setattr(softmax_regression, "TOLERANCE", 1e-12)
    whole = photos.take(np.r_[0:40, 90:150]).solve([slice(0, 100)], 0.1, start)
    monkeypatch.setattr(softmax_regression, "BLOCK", 7)
    parts = photos.solve([slice(0, 40), slice(90, 150)], 0.1, start)

    assert parts == pytest.approx(whole, abs=1e-4)


def test_features_that_part_the_classes_do_not_lead_astray() -> None:
    """A flat loss far out: the weights stay finite, and every row is classified correctly."""
    features = np.linspace(-50, 50, 40)[:, None]
    targets = (features[:, 0] > 0).astype(np.int64)
    coordinates, variances, _, _ = principal_axes(features, np.arange(40), int)
    photos = TrainingSet(coordinates, variances, targets, 2, step=int)
    weights = solve(photos, slice(0, 40), 0.0)

    assert np.isfinite(weights).all()
    assert (photos.logits(slice(0, 40), weights).argmax(axis=1) == targets).all()


@pytest.mark.parametrize("d", [20, 200], ids=["more photos than features", "fewer"])
def test_principal_axes_are_a_rotation(d: int) -> None:
    """Distances stay as they were, but for one scale; the axes do not correlate."""
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(60, d)) * np.geomspace(1, 30, d) + 5).astype(np.float32)
    order = rng.permutation(60)
    coordinates, variances, mean, back = principal_axes(features, order, int)
    x = features[order].astype(np.float64) - mean
    z = coordinates.astype(np.float64)

    assert z @ z.T == pytest.approx(x @ x.T / (x**2).mean(), abs=1e-4 * d)
    assert z.T @ z / 60 == pytest.approx(np.diag(variances), abs=1e-4 * variances.max())
    assert x @ back == pytest.approx(z, abs=1e-3)


def test_photos_that_are_all_the_same_have_no_axes() -> None:
    """What is left to learn is how frequent each class is."""
    coordinates, variances, _, _ = principal_axes(np.ones((40, 6)), np.arange(40), int)
    photos = TrainingSet(coordinates, variances, (np.arange(40) < 10).astype(int), 2, step=int)
    logits = photos.logits(slice(0, 40), solve(photos, slice(0, 40), 0.1))

    assert coordinates.shape == (40, 0)
    assert np.exp(log_softmax(logits))[:, 1] == pytest.approx(0.25, abs=1e-3)
