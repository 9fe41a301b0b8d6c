import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy.stats import binomtest
from toys import SetParams, draw_set, encoded, photo

from meadow.errors import MeadowError
from meadow.evaluate import evaluate
from meadow.evaluation import predictions
from meadow.inference.classifier import Classifier
from meadow.pipeline import manifest, probabilities
from meadow.prepare import prepare
from meadow.report import report
from meadow.train import train


def read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text())
    return content


def table(path: str) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_figures_are_those_of_the_served_object_on_the_test_photos(in_built: Path) -> None:
    """Computed again here by SciPy and scikit-learn, photo by photo, from the files."""
    model, ready = Classifier.load(), manifest.load()
    rows = ready.split("test")
    answers = np.stack(
        [model.predict(Path("data/raw", row.path).read_bytes()).probabilities for row in rows]
    )
    figures = read("metrics/evaluate.json")

    targets = ready.targets(rows)
    interval = binomtest(int((answers.argmax(axis=1) == targets).sum()), len(rows))
    low, high = interval.proportion_ci(method="wilson")
    expected = {
        "accuracy": reference.accuracy_score(targets, answers.argmax(axis=1)),
        "accuracy_low": low,
        "accuracy_high": high,
        "log_loss": reference.log_loss(targets, answers, labels=[0, 1]),
        "brier": reference.brier_score_loss(targets, answers[:, 1]),
        "auroc": reference.roc_auc_score(np.eye(2)[targets].ravel(), answers.ravel()),
        "macro_recall": reference.recall_score(targets, answers.argmax(axis=1), average="macro"),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert figures["n_test"] == len(rows)
    assert [record["path"] for record in table("reports/predictions.csv")] == [r.path for r in rows]


def test_a_probe_is_cross_validated_on_the_other_photos(in_built: Path) -> None:
    """By train, as scikit-learn measures it; the test photos have no part in it."""
    figures, counts = read("metrics/evaluate.json"), read("metrics/prepare.json")
    low, high = figures["cv_accuracy_low"], figures["cv_accuracy_high"]
    ready = manifest.load()
    targets = ready.targets(ready.split("train") + ready.split("val"))
    held_out = np.exp(np.load("models/classifier/held_out.npy").astype(np.float64))
    held_out /= held_out.sum(axis=1, keepdims=True)

    assert figures["cv_log_loss"] == pytest.approx(reference.log_loss(targets, held_out), abs=1e-5)
    assert figures["cv_n"] == counts["train"] + counts["val"]
    assert 0 <= low <= figures["cv_accuracy"] <= high <= 1
    assert figures["cv_log_loss"] < np.log(2)


@pytest.mark.slow
def test_of_very_many_classes_the_likeliest_go_through_all_stages(
    project: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five classes that are treated as ten thousand: the same figures, but for what the rest is."""
    draw_set(Path("data/raw"), dict.fromkeys("abcde", 24))
    set_params(
        prepare={"size": 32, "val": 0.25, "test": 0.25},
        train={"method": "probe", "arch": "shufflenet_v2_x0_5"},
    )
    prepare()

    def figures() -> dict[str, Any]:
        train()
        evaluate()
        report()
        return read("metrics/evaluate.json")

    whole = figures()
    monkeypatch.setattr(probabilities, "WHOLE", 10)
    for module in (probabilities, predictions):
        monkeypatch.setattr(module, "KEPT", 2)
    few = figures()

    assert few.keys() == whole.keys()
    exact = [name for name in whole if not re.search("brier|auroc|ece|top_5", name)]
    assert {k: few[k] for k in exact} == pytest.approx({k: whole[k] for k in exact}, abs=1e-5)
    assert few == pytest.approx(whole, abs=0.1)
    assert len(json.loads(table("reports/predictions.csv")[0]["likeliest"])) == 2
    assert np.load("models/classifier/held_out.npy").dtype == probabilities.PAIR


def test_finetune_has_no_cross_validation(toy_set: Path) -> None:
    """It would train five networks; so no cv_ figures, and no line in the list of labels.

    The report says nothing of either, and shows the curves of train and val photos.
    """
    prepare()
    train()
    evaluate()
    report()
    page = Path("reports/report.html").read_text()

    assert not [name for name in read("metrics/evaluate.json") if name.startswith("cv_")]
    assert predictions.load(predictions.OUT_OF_FOLD) == []
    assert "ross-validated" not in page + Path("reports/model-card.md").read_text()
    assert "Labels that may be wrong" not in page
    assert "On the val photos, dashed on the train photos." in page


def test_the_plots_hold_what_their_names_say(in_built: Path) -> None:
    """One row a photo in the confusion, a ROC from corner to corner, all photos in the bins."""
    n = read("metrics/evaluate.json")["n_test"]
    roc = table("metrics/plots/roc.csv")

    assert len(table("metrics/plots/confusion.csv")) == n
    assert roc[0] == {"fpr": "0.0", "tpr": "0.0"}
    assert roc[-1] == {"fpr": "1.0", "tpr": "1.0"}
    assert sum(int(row["photos"]) for row in table("metrics/plots/reliability.csv")) == n


def test_evaluating_twice_gives_the_same_bytes(in_built: Path) -> None:
    """No time, no path of the machine."""
    files = [*Path("reports").iterdir(), *Path("metrics/plots").iterdir()]
    before = {file: file.read_bytes() for file in files}
    evaluate()

    assert before == {file: file.read_bytes() for file in files}


def test_a_photo_that_changed_since_prepare_is_refused(in_built: Path) -> None:
    """Its label, its split and its near-duplicates were decided for other pixels."""
    Path("data/raw", manifest.load().split("test")[0].path).write_bytes(encoded(photo(4711)))

    with pytest.raises(MeadowError, match="has changed since prepare"):
        evaluate()


def test_a_damaged_model_is_refused(in_built: Path) -> None:
    """By its SHA-256, before anything is computed with it."""
    path = Path("models/classifier/model.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    with pytest.raises(MeadowError, match=r"model\.onnx is damaged"):
        Classifier.load()


def test_the_gate_fails_in_words_and_never_by_its_status(
    toy_set: Path, set_params: SetParams
) -> None:
    """A run that fails loses its results; a verdict does not."""
    set_params(evaluate={"min_accuracy": 1.0, "max_log_loss": 1e-9, "min_answered_accuracy": 0.0})
    prepare()
    train()
    evaluate()
    gate = read("metrics/gate.json")

    assert gate["passed"] is False
    assert [why[:6] for why in gate["why"]] == ["failed", "failed", "passed", "passed"]
