import numpy as np
import pytest
import sklearn.metrics as reference
from sklearn.calibration import calibration_curve

from meadow.evaluation import metrics
from meadow.pipeline.intervals import wilson

RNG = np.random.default_rng(0)
TARGETS = RNG.integers(0, 3, 200)
RAW = RNG.random((200, 3)) + np.eye(3)[TARGETS]
PROBABILITIES = RAW / RAW.sum(axis=1, keepdims=True)


def test_scikit_learn_agrees() -> None:
    """The oracle for log-loss, Brier score and ROC."""
    truth = np.eye(3)[TARGETS]

    assert metrics.log_loss(PROBABILITIES, TARGETS) == pytest.approx(
        reference.log_loss(TARGETS, PROBABILITIES)
    )
    assert metrics.brier(PROBABILITIES, TARGETS) == pytest.approx(
        reference.brier_score_loss(TARGETS, PROBABILITIES, scale_by_half=True, labels=[0, 1, 2])
    )
    assert metrics.auroc(metrics.micro_roc(PROBABILITIES, TARGETS)) == pytest.approx(
        reference.roc_auc_score(truth.ravel(), PROBABILITIES.ravel())
    )


def test_the_area_of_very_many_probabilities_is_near_the_exact_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are counted in steps; scikit-learn sorts them all."""
    truth = np.eye(3)[TARGETS]
    monkeypatch.setattr(metrics, "WHOLE", 0)
    fpr, tpr = metrics.micro_roc(PROBABILITIES, TARGETS)

    exact = reference.roc_auc_score(truth.ravel(), PROBABILITIES.ravel())
    assert metrics.auroc((fpr, tpr)) == pytest.approx(exact, abs=1e-4)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_scikit_learn_agrees_on_each_class() -> None:
    """Recall, precision and their means; the accuracy of the five likeliest classes."""
    random = np.random.default_rng(1)
    targets = random.integers(0, 7, 300)
    raw = random.random((300, 7)) + 0.5 * np.eye(7)[targets]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    precision, recall, _, photos = reference.precision_recall_fscore_support(
        targets, probabilities.argmax(axis=1)
    )
    table, figures = (
        metrics.per_class(probabilities, targets),
        metrics.summary(probabilities, targets),
    )

    assert [line["precision"] for line in table] == pytest.approx(precision)
    assert [line["recall"] for line in table] == pytest.approx(recall)
    assert [line["photos"] for line in table] == photos.tolist()
    assert figures["macro_recall"] == pytest.approx(recall.mean())
    assert figures["worst_recall"] == pytest.approx(recall.min())
    assert figures["top_5_accuracy"] == pytest.approx(
        reference.top_k_accuracy_score(targets, probabilities, k=5)
    )


def test_scikit_learn_agrees_on_the_bins_of_reliability() -> None:
    """Bins of equally many photos: mean confidence against the share that is correct."""
    correct = PROBABILITIES.argmax(axis=1) == TARGETS
    accuracy, confidence = calibration_curve(
        correct, PROBABILITIES.max(axis=1), n_bins=5, strategy="quantile"
    )
    bins = metrics.reliability(PROBABILITIES, TARGETS)

    assert [line["accuracy"] for line in bins] == pytest.approx(accuracy)
    assert [line["confidence"] for line in bins] == pytest.approx(confidence)


def test_ties_in_a_score_move_together() -> None:
    """Otherwise the order of the file would decide the area."""
    tied = np.ones(10)
    positive = np.arange(10) < 5

    for order in (positive, positive[::-1]):
        assert metrics.auroc(metrics.roc(tied, order)) == 0.5


def test_a_calibrated_model_has_a_small_ece() -> None:
    """And one that is always sure but right in 83 % has one of 0.17."""
    confidence = RNG.uniform(0.5, 1, 50_000)
    right = RNG.random(50_000) < confidence
    honest = np.stack([confidence, 1 - confidence], axis=1)
    boastful = np.tile([1.0, 0.0], (60, 1))

    assert metrics.ece(honest, (~right).astype(np.int64)) < 0.01
    assert metrics.ece(boastful, (np.arange(60) >= 50).astype(np.int64)) == pytest.approx(1 / 6)


def test_certain_and_wrong_is_finite() -> None:
    """A probability of exactly 0 must not make the metrics file invalid."""
    assert np.isfinite(metrics.log_loss(np.array([[1.0, 0.0]]), np.array([1])))


def test_the_summary_is_complete() -> None:
    """The names that experiments are compared by."""
    assert list(metrics.summary(PROBABILITIES, TARGETS)) == [
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "log_loss",
        "brier",
        "ece",
        "ece_if_perfect",
        "auroc",
        "macro_recall",
        "worst_recall",
        "share_at_99",
    ]


def test_more_than_five_classes_have_a_top_5_accuracy() -> None:
    """The true class is the sixth of one photo, the fifth of the other."""
    probabilities = np.array([[0.3, 0.2, 0.2, 0.15, 0.1, 0.05]] * 2)

    assert metrics.summary(probabilities, np.array([5, 4]))["top_5_accuracy"] == 0.5


def test_a_perfectly_calibrated_model_shows_an_ece_too() -> None:
    """Of labels drawn from the probabilities; it falls as photos are added, and is not 0."""
    p = np.random.default_rng(0).uniform(0.5, 1, 2000)
    probabilities = np.stack([p, 1 - p], axis=1)
    few, many = (metrics.ece_if_perfect(probabilities[:n]) for n in (80, 2000))

    assert 0.04 < few < 0.1
    assert many < few / 3


def test_each_class_has_its_recall_with_an_interval() -> None:
    """Unbalanced: a model that always says the larger class is right in 90 %, and useless."""
    table = metrics.per_class(
        np.tile([0.9, 0.1], (100, 1)), (np.arange(100) >= 90).astype(np.int64)
    )

    assert [line["recall"] for line in table] == [1, 0]
    assert [line["photos"] for line in table] == [90, 10]
    assert table[1]["recall_low"] == pytest.approx(0)
    assert 0.2 < table[1]["recall_high"] < 0.4
    assert table[0]["precision"] == 0.9


def test_only_one_class_in_distribution_is_an_answer() -> None:
    """Not two classes, not none, and not a photo of something else; a wrong answer counts."""
    p = np.array([[0.9, 0.1]] * 5)
    sizes = np.array([1, 1, 2, 0, 1])
    near = np.array([True, True, True, True, False])
    figures = metrics.answered_figures(p, np.array([0, 1, 0, 0, 0]), sizes, near)

    assert figures["answered_share"] == 2 / 5
    assert figures["answered_accuracy"] == 1 / 2
    assert figures["answered_accuracy_low"] == wilson(1, 2)[0]


def test_without_an_answer_the_accuracy_is_unknown() -> None:
    """It lies between 0 and 1; a value would be made up, and a report would show it."""
    none = np.zeros(3, np.int64)
    figures = metrics.answered_figures(np.eye(2)[[0, 1, 0]], none, none, none == 0)

    assert "answered_accuracy" not in figures
    assert [figures[f"answered_accuracy_{end}"] for end in ("low", "high")] == [0, 1]


def test_an_empty_set_is_not_coverage() -> None:
    """The true class is not in it, so it counts against the share that was promised."""
    figures = metrics.set_figures(np.array([1, 0]), np.array([True, False]))

    assert (figures["set_coverage"], figures["set_size"]) == (0.5, 0.5)


def test_the_share_at_an_accuracy_is_the_largest() -> None:
    """100 sure ones with one mistake among the last, then mistakes: all but those."""
    confidence = np.linspace(0.99, 0.6, 104)
    p = np.stack([confidence, 1 - confidence], axis=1)
    targets = np.array([0] * 50 + [1] + [0] * 49 + [1] * 4)

    assert metrics.share_at_accuracy(p, targets, 0.99) == 100 / 104
    assert metrics.share_at_accuracy(p[100:], targets[100:], 0.99) == 0


def test_abstention_is_judged_on_the_surest() -> None:
    """Sure and right, unsure and wrong: half answered is all right, all answered is half."""
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    points = metrics.abstention(probabilities, np.array([0] * 10 + [1] * 10))
    accuracy = {round(point["answered"], 2): point["accuracy"] for point in points}

    assert accuracy[0.5] == 1.0
    assert accuracy[1.0] == 0.5
