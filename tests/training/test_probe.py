import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from meadow.training import probe
from meadow.training.probe import Examples, calibrate, cross_validate, fit, folds


def examples(n: int = 120, d: int = 40, classes: int = 3, noise: float = 1.0) -> Examples:
    """Draw classes around random centres; the second view is a noisy copy of the first."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % classes
    plain = rng.normal(size=(classes, d))[targets] + noise * rng.normal(size=(n, d))
    views = np.stack([plain, plain + 0.1 * rng.normal(size=(n, d))], axis=1)
    return Examples(views.astype(np.float32), targets, [f"photo {i}" for i in range(n)], classes)


@pytest.mark.parametrize("d", [40, 400], ids=["more photos than features", "fewer"])
def test_it_is_the_penalised_regression_of_scikit_learn(d: int) -> None:
    """The oracle, on the same scaled features and with the same penalty, gives the same logits."""
    data, l2 = examples(d=d), 0.1
    head = fit(data, l2)

    x = data.features.reshape(-1, d).astype(np.float64)
    scale = np.sqrt(np.mean((x - x.mean(axis=0)) ** 2))
    oracle = LogisticRegression(C=1 / (l2 * len(x)), tol=1e-10, max_iter=50_000)
    oracle.fit((x - x.mean(axis=0)) / scale, data.targets.repeat(2))
    expected = oracle.decision_function((x - x.mean(axis=0)) / scale)
    logits = (x @ head.weight + head.bias) * head.temperature

    centred = logits - logits.mean(axis=1, keepdims=True)
    assert np.abs(centred - expected).max() < 2e-3  # of logits up to 4


def test_the_same_features_give_the_same_bytes() -> None:
    """Whatever number of threads the linear algebra library would like to use."""
    one, other = fit(examples()), fit(examples())

    assert one.weight.tobytes() == other.weight.tobytes()
    assert one.bias.tobytes() == other.bias.tobytes()


def test_the_penalty_is_chosen_by_cross_validation() -> None:
    """Pure noise asks for the strongest penalty, clean classes for a weak one."""
    noise = examples()
    shuffled = np.random.default_rng(1).permutation(noise.targets)
    nonsense = Examples(noise.features, shuffled, noise.groups, noise.classes)

    assert fit(nonsense).l2 == probe.L2_PATH[0]
    assert fit(examples(noise=0.3)).l2 < 0.1


def test_cross_validation_on_nonsense_is_at_chance() -> None:
    """Nothing of a photo that is judged leaks into the head that judges it."""
    noise = examples(n=300)
    shuffled = np.random.default_rng(1).permutation(noise.targets)
    nonsense = Examples(noise.features, shuffled, noise.groups, noise.classes)

    right = (cross_validate(nonsense).argmax(axis=1) == shuffled).mean()

    assert right == pytest.approx(1 / 3, abs=4 * np.sqrt(2 / 9 / 300))


def test_a_group_is_judged_by_a_head_that_never_saw_it() -> None:
    """Copies of one photo with a label at random: only a leak could get them right."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 1, 50)).repeat(5, axis=0)
    targets = rng.integers(0, 2, 60).repeat(5)
    groups = [f"group {i // 5}" for i in range(300)]

    right = (
        cross_validate(Examples(features, targets, groups, 2)).argmax(axis=1) == targets
    ).mean()

    assert right < 0.75


def test_folds_are_even_within_each_class() -> None:
    """A fold without a class could not be judged on it."""
    data = examples(n=103)
    fold = folds(data, 5)

    for target in range(data.classes):
        sizes = np.bincount(fold[data.targets == target], minlength=5)
        assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_calibration_finds_the_temperature(true: float) -> None:
    """Labels drawn from softmax(logits): logits scaled by t are brought back by t."""
    rng = np.random.default_rng(3)
    logits = 2 * rng.normal(size=(20_000, 3))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)

    assert calibrate(logits * true, targets) == pytest.approx(true, rel=0.05)


def test_a_few_right_answers_do_not_prove_certainty() -> None:
    """30 photos without a mistake: the temperature stays far from its lower end."""
    logits = np.where(np.eye(2)[np.arange(30) % 2] > 0, 2.0, -2.0)

    assert calibrate(logits, np.arange(30) % 2) > 0.5
