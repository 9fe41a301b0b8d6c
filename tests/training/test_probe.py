from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meadow.evaluation import label_issues, metrics
from meadow.pipeline import probabilities
from meadow.pipeline.probabilities import KEPT, likeliest, of_targets, stored
from meadow.training import probe, scratch, softmax_regression
from meadow.training.calibration import calibrate, log_softmax
from meadow.training.probe import L2_PATH, Examples, fit, folds


def examples(n: int = 120, d: int = 40, classes: int = 3, noise: float = 1.0) -> Examples:
    """Draw classes around random centres."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % classes
    features = rng.normal(size=(classes, d))[targets] + noise * rng.normal(size=(n, d))
    return Examples(features.astype(np.float32), targets, [f"photo {i}" for i in range(n)], classes)


def nonsense(n: int = 120) -> Examples:
    data = examples(n)
    return replace(data, targets=np.random.default_rng(1).permutation(data.targets))


def test_new_photos_are_answered_as_surely_as_the_drift_reference_says() -> None:
    """By a head of every second photo; the temperature is the head's own."""
    data = examples(n=400, noise=3)
    half = slice(None, None, 2)
    learned = Examples(data.features[half], data.targets[half], data.groups[half], data.classes)
    head = fit(learned)
    answers = log_softmax(data.features[1::2] @ head.weight + head.bias)
    sure, foretold = (np.exp(p).max(axis=1).mean() for p in (answers, head.as_served))

    assert calibrate(head.as_served, learned.targets) == pytest.approx(1, abs=0.02)
    assert sure == pytest.approx(foretold, abs=0.03)


@pytest.mark.parametrize("d", [40, 400], ids=["more photos than features", "fewer"])
def test_it_is_the_penalised_regression_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, d: int
) -> None:
    """The oracle, on the same scaled features and with the same penalty, gives the same logits.

    And the same cross-validation, at temperatures that are each chosen on the other folds. Products
    in float32 differ between processors: OpenBLAS has kernels of its own for each.
    """
    monkeypatch.setattr(softmax_regression, "TOLERANCE", 1e-12)
    data, l2 = examples(d=d), 0.1
    head = fit(data, l2)

    x = data.features.astype(np.float64) - data.features.mean(axis=0, dtype=np.float64)
    x /= np.sqrt(np.mean(x**2))

    def oracle(rows: np.ndarray) -> np.ndarray:
        """Return logits of all by a head that learned from rows."""
        seen = x[rows]
        model = LogisticRegression(C=1 / (l2 * len(seen)), tol=1e-10, max_iter=50_000)
        return np.asarray(model.fit(seen, data.targets[rows]).decision_function(x))

    logits = (data.features @ head.weight + head.bias) * head.temperature
    centred = logits - logits.mean(axis=1, keepdims=True)
    assert centred == pytest.approx(oracle(np.full(120, True)), abs=1e-3)

    fold = folds(data.groups, data.targets, probe.FOLDS)
    judged = np.stack([oracle(fold != k) for k in range(probe.FOLDS)])[fold, np.arange(120)]
    for k in range(probe.FOLDS):
        temperature = calibrate(judged[fold != k], data.targets[fold != k])
        expected = log_softmax(judged[fold == k] / temperature)
        assert head.held_out[fold == k] == pytest.approx(expected, rel=1e-3, abs=2e-3)


@pytest.mark.parametrize("nested", [0, 4000], ids=["chosen once", "nested"])
def test_any_number_of_threads_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, nested: int
) -> None:
    """Folds are computed side by side, and put together in their order."""
    monkeypatch.setattr(probe, "NESTED", nested)
    one, two = fit(examples(), workers=1), fit(examples(), workers=2)

    assert one.log_loss == two.log_loss
    for name in ("weight", "bias", "held_out", "as_served"):
        assert getattr(one, name).tobytes() == getattr(two, name).tobytes()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_large_set_has_the_bytes_that_folds_side_by_side_give(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int
) -> None:
    """There blocks of photos are side by side, and their coordinates lie in a file."""
    data = examples(n=1000, noise=3)
    monkeypatch.setattr(softmax_regression, "BLOCK", 64)
    small = fit(data, 0.1)
    monkeypatch.setattr(probe, "CROWD", 0)
    monkeypatch.setattr(scratch, "LARGE", 0)
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))
    large = fit(data, 0.1, workers=workers)

    assert large.log_loss == small.log_loss
    for name in ("weight", "bias", "held_out", "as_served"):
        assert getattr(large, name).tobytes() == getattr(small, name).tobytes()


def test_of_many_classes_the_likeliest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the probabilities that all have; a sample of the photos chooses the temperature."""
    classes = 3 * KEPT
    data = examples(n=8 * classes, d=60, classes=classes, noise=2)
    whole = fit(data, 0.01)
    for module in (probe, probabilities):
        monkeypatch.setattr(module, "WHOLE", 4 * classes**2)  # every second photo
    monkeypatch.setattr(softmax_regression, "BLOCK", 101)
    kept = fit(data, 0.01)
    p, all_p = stored(kept.held_out, classes), np.exp(whole.held_out, dtype=np.float64)

    assert kept.held_out.shape == (len(data.targets), KEPT)
    assert kept.temperature == pytest.approx(whole.temperature, rel=0.03)
    assert of_targets(p, data.targets) == pytest.approx(of_targets(all_p, data.targets), abs=0.02)
    assert (likeliest(p)[0] == likeliest(all_p)[0]).mean() > 0.99
    assert metrics.summary(p, data.targets) == pytest.approx(
        metrics.summary(all_p, data.targets), abs=0.01
    )
    issues = label_issues.issues(p, data.targets) == label_issues.issues(all_p, data.targets)
    assert issues.mean() > 0.98


def test_the_penalty_is_chosen_by_cross_validation() -> None:
    """Pure noise asks for the strongest penalty, clean classes for a weak one."""
    assert fit(nonsense()).l2 == L2_PATH[0]
    assert fit(examples(noise=0.3)).l2 < 0.1


def test_the_path_of_penalties_ends_where_they_would_win_by_chance() -> None:
    """The weakest that 120 photos can choose is 0.4 / 120."""
    tried = fit(examples(noise=0.1)).log_loss

    assert min(tried) == 0.01
    assert list(tried) == list(L2_PATH[: len(tried)])


@pytest.mark.parametrize("nested", [0, 4000], ids=["chosen once", "nested"])
def test_cross_validation_on_nonsense_is_at_chance(
    monkeypatch: pytest.MonkeyPatch, nested: int
) -> None:
    """Nothing of a photo that is judged leaks into the head that judges it."""
    monkeypatch.setattr(probe, "NESTED", nested)
    data = nonsense(300)
    right = (fit(data).held_out.argmax(axis=1) == data.targets).mean()

    assert right == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 300))


@pytest.mark.parametrize("nested", [0, 4000], ids=["chosen once", "nested"])
def test_a_group_is_judged_by_a_head_that_never_saw_it(
    monkeypatch: pytest.MonkeyPatch, nested: int
) -> None:
    """Copies of one photo with a label at random: only a leak could get them right."""
    monkeypatch.setattr(probe, "NESTED", nested)
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 50)).repeat(5, axis=0)
    targets = rng.integers(0, 2, 60).repeat(5)
    groups = [f"group {i // 5}" for i in range(300)]
    held_out = fit(Examples(features, targets, groups, 2)).held_out

    assert (held_out.argmax(axis=1) == targets).mean() < 0.75


def test_nested_cross_validation_chooses_without_the_photos_it_judges() -> None:
    """A fold's probabilities are those of a head fitted where its photos do not exist."""
    data = examples()
    outer = folds(data.groups, data.targets, probe.FOLDS)
    held, rest = np.flatnonzero(outer == 2), np.flatnonzero(outer != 2)
    changed = data.features.copy()
    changed[held[1:]] = np.random.default_rng(5).normal(size=changed[held[1:]].shape)
    before, after = fit(data).held_out, fit(replace(data, features=changed)).held_out

    # The axes are of all photos, so that digits change, and of one photo alone nothing else.
    assert np.exp(after[held[0]]) == pytest.approx(np.exp(before[held[0]]), abs=0.05)
    assert np.abs(np.exp(after[rest]) - np.exp(before[rest])).max() > 0.05


def test_folds_are_even_within_each_class() -> None:
    """A fold without a class could not be judged on it."""
    data = examples(n=103)
    fold = folds(data.groups, data.targets, 5)

    for target in range(data.classes):
        sizes = np.bincount(fold[data.targets == target], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_one_group_a_class_still_has_a_head() -> None:
    """The metadata of a tiny set is judged as well as may be."""
    features = np.array([0.0, 0.1, 1.0, 1.1])[:, None]
    head = fit(Examples(features, np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], 2), 0.1)

    assert np.isfinite(head.held_out).all()
