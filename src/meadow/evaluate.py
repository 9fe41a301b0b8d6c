"""Measure the served classifier on the test photos, which nothing else reads.

Reads:  models/classifier/, data/prepared/, the test photos (data.dir), section `evaluate` of
        params.yaml.
Writes: metrics/evaluate.json, metrics/gate.json, metrics/plots/ (confusion.csv, roc.csv,
        reliability.csv), and reports/ (predictions.csv, mistakes.png, and for a probe review.csv
        and review.png: labels of train and val photos that may be wrong. Finetune has no
        probabilities out of fold to judge them by, and so no such list).
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from meadow import (
    classifier,
    features,
    head,
    outputs,
    parallel,
    params,
    prepared,
    reports,
    review,
    scores,
)
from meadow.classifier import Classifier
from meadow.errors import MeadowError, run
from meadow.prepared import Prepared, Row

METRICS = Path("metrics/evaluate.json")
GATE = Path("metrics/gate.json")


class EvaluateParams(params.Section):
    """Section `evaluate`; params.yaml says what each key means."""

    folds: int = Field(ge=2, le=20)
    min_accuracy: float = Field(ge=0, le=1)
    max_log_loss: float = Field(gt=0)


def evaluate() -> None:
    """Run the stage."""
    folder = Path(params.load("data", params.Data).dir)
    p = params.load("evaluate", EvaluateParams)
    workers = params.load("runtime", params.Runtime).workers
    ready = prepared.load()
    model = Classifier.load()
    rows = ready.split("test")
    targets = ready.targets(rows)

    def answer(row: Row) -> NDArray[np.float64]:
        return model.predict(read(folder, row))

    answers = parallel.ordered(answer, rows, workers=workers, title="evaluate")
    probabilities = np.stack(list(answers))
    figures = {**scores.summary(probabilities, targets), "n_test": len(rows)}
    probe = model.about["method"] == "probe"
    if probe:
        others = ready.split("train") + ready.split("val")
        out_of_fold = cross_validated(model, ready, p.folds, workers)
        found = scores.summary(out_of_fold, ready.targets(others))
        figures |= {f"cv_{name}": value for name, value in found.items()} | {"cv_n": len(others)}

    reports.write_plots(probabilities, targets, model.classes)
    with outputs.whole(reports.FOLDER) as out:
        out.mkdir()
        reports.write_predictions(out, rows, probabilities, model.classes)
        reports.write_mistakes(out, folder, rows, probabilities, model.classes)
        if probe:
            review.write(out, others, out_of_fold, model.classes, partial(read, folder))
    outputs.write_json(GATE, gate(figures, p))
    outputs.write_json(METRICS, figures)


def read(folder: Path, row: Row) -> bytes:
    """Read a photo's file, and make sure that it is the one that prepare saw."""
    data = (folder / row.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise MeadowError(f"{folder / row.path} has changed since prepare. Run `dvc repro`.")
    return data


def cross_validated(
    model: Classifier, ready: Prepared, folds: int, workers: int
) -> NDArray[np.float64]:
    """Return probabilities of the train, then the val photos, each by a head that did not see it.

    The whole recipe is cross-validated, see `head.cross_validate`: (n, classes).
    """
    network = classifier.FOLDER / classifier.NETWORK
    examples = features.examples(network, model.about["backbone"], ready, workers=workers)
    l2 = None if model.about["l2_chosen"] else model.about["l2"]
    return head.cross_validate(examples, l2, folds)


def gate(figures: dict[str, Any], p: EvaluateParams) -> dict[str, Any]:
    """Say whether the model is good enough to release, and why not; never fails a run."""
    reasons = []
    if figures["accuracy_low"] < p.min_accuracy:
        reasons.append(
            f"the test accuracy may be as low as {figures['accuracy_low']:.3f} (95 % interval),"
            f" under evaluate.min_accuracy {p.min_accuracy}"
        )
    if figures["log_loss"] > p.max_log_loss:
        reasons.append(
            f"the test log-loss {figures['log_loss']:.3f} is over evaluate.max_log_loss"
            f" {p.max_log_loss}"
        )
    return {"passed": not reasons, "reasons": reasons}


if __name__ == "__main__":
    run(evaluate)
