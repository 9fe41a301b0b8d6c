"""Measure the served classifier on the test photos, which nothing else reads.

Reads:  models/classifier/, data/prepared/, metrics/train/, the test photos (data.dir),
        metrics/released.csv, section `evaluate` of params.yaml.
Writes: metrics/evaluate.json, metrics/gate.json, metrics/plots/ (confusion.csv, roc.csv,
        reliability.csv, abstention.csv), and reports/ (report.html, model-card.md,
        predictions.csv, classes.csv, mistakes.png, and for a probe review.csv and review.png:
        labels of train and val photos that may be wrong. Finetune has no probabilities out of fold
        to judge them by, and so no such list).
"""

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow import params
from meadow.errors import MeadowError, run
from meadow.evaluation import gate, label_issues, metrics, tables
from meadow.inference import classifier
from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline import atomic, manifest, parallel
from meadow.pipeline.manifest import Prepared, Row
from meadow.reporting import model_card, sections
from meadow.reporting.findings import Findings, Judged
from meadow.training import features, probe

METRICS = Path("metrics/evaluate.json")
GATE = Path("metrics/gate.json")


def evaluate() -> None:
    """Run the stage."""
    chosen = params.load()
    folder, p, workers = Path(chosen.data.dir), chosen.evaluate, chosen.runtime.workers
    ready = manifest.load()
    model = Classifier.load()
    rows = ready.split("test")
    targets = ready.targets(rows)

    def answer(row: Row) -> Answer:
        return model.predict(read(folder, row))

    answers = list(parallel.ordered(answer, rows, workers=workers, title="evaluate"))
    probabilities = np.stack([each.probabilities for each in answers])
    figures = {**metrics.summary(probabilities, targets), "n_test": len(rows)}
    figures |= doubts(answers, targets)
    probe = model.about["method"] == "probe"
    if probe:
        others = ready.split("train") + ready.split("val")
        out_of_fold = cross_validated(model, ready, p.folds, workers)
        cv = metrics.summary(out_of_fold, ready.targets(others))
        figures |= {f"cv_{name}": value for name, value in cv.items()} | {"cv_n": len(others)}

    verdict = gate.verdict(figures, rows, probabilities, targets, p)
    seen = Judged(others, out_of_fold, ready.targets(others)) if probe else None
    found = Findings(
        model=model,
        ready=ready,
        figures=figures,
        verdict=verdict,
        test=Judged(rows, probabilities, targets),
        answers=answers,
        out_of_fold=seen,
        limits=p.model_dump(),
        read=partial(read, folder),
    )
    tables.write_plots(probabilities, targets, model.classes)
    with atomic.whole(tables.FOLDER) as out:
        out.mkdir()
        tables.write_predictions(out, rows, answers, model.classes)
        tables.write_classes(out, probabilities, targets, model.classes)
        tables.write_mistakes(out, folder, rows, probabilities, model.classes)
        if probe:
            label_issues.write(out, others, out_of_fold, model.classes, partial(read, folder))
        sections.write(out, found)
        model_card.write(out, found)
    atomic.write_json(GATE, verdict)
    atomic.write_json(METRICS, figures)
    print(found.summary)
    print(f"Look: {tables.FOLDER}/report.html")


def read(folder: Path, row: Row) -> bytes:
    """Read a photo's file, and make sure that it is the one that prepare saw."""
    data = (folder / row.path).read_bytes()
    if hashlib.sha256(data).hexdigest() != row.sha256:
        raise MeadowError(f"{folder / row.path} has changed since prepare. Run `dvc repro`.")
    return data


def doubts(answers: Sequence[Answer], targets: NDArray[np.int64]) -> dict[str, float]:
    """Return how often the set holds the true class, its size, and how many photos are "in"."""
    held = [bool(each.prediction_set[t]) for each, t in zip(answers, targets, strict=True)]
    low, high = metrics.wilson(sum(held), len(held))
    return {
        "set_coverage": sum(held) / len(held),
        "set_coverage_low": low,
        "set_coverage_high": high,
        "set_size": float(np.mean([each.prediction_set.sum() for each in answers])),
        "in_distribution": float(np.mean([each.in_distribution for each in answers])),
    }


def cross_validated(
    model: Classifier, ready: Prepared, folds: int, workers: int
) -> NDArray[np.float64]:
    """Return probabilities of the train, then the val photos, each by a head that did not see it.

    The whole recipe is cross-validated, see `probe.cross_validate`: (n, classes).
    """
    network = classifier.FOLDER / classifier.NETWORK
    examples, _ = features.examples(network, model.about["backbone"], ready, workers=workers)
    l2 = None if model.about["l2_chosen"] else model.about["l2"]
    return probe.cross_validate(examples, l2, folds)


if __name__ == "__main__":
    run(evaluate)
