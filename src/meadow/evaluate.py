"""Measure the served classifier on the test photos, which nothing else reads.

Reads:  models/classifier/, data/prepared/, metrics/train/, the test photos (data.dir),
        metrics/released.csv, section `evaluate` of params.yaml.
Writes: metrics/evaluate.json, metrics/gate.json, metrics/plots/ (confusion.csv, roc.csv,
        reliability.csv, abstention.csv), and reports/ (report.html, model-card.md,
        predictions.csv, classes.csv, mistakes.png, and for a method that is cross-validated
        review.csv and review.png: labels of train and val photos that may be wrong).
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
from meadow.training.methods import METHODS

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
    out_of_fold = cross_validated(model, ready, p.folds, workers)
    if out_of_fold:
        cv = metrics.summary(out_of_fold.probabilities, out_of_fold.targets)
        figures |= {f"cv_{name}": value for name, value in cv.items()}
        figures["cv_n"] = len(out_of_fold.rows)

    verdict = gate.verdict(figures, rows, probabilities, targets, p)
    found = Findings(
        model=model,
        ready=ready,
        figures=figures,
        verdict=verdict,
        test=Judged(rows, probabilities, targets),
        answers=answers,
        out_of_fold=out_of_fold,
        limits=p.model_dump(),
        read=partial(read, folder),
    )
    tables.write_plots(probabilities, targets, model.classes)
    with atomic.whole(tables.FOLDER) as out:
        out.mkdir()
        tables.write_predictions(out, rows, answers, model.classes)
        tables.write_classes(out, probabilities, targets, model.classes)
        tables.write_mistakes(out, folder, rows, probabilities, model.classes)
        if out_of_fold:
            label_issues.write(
                out,
                out_of_fold.rows,
                out_of_fold.probabilities,
                model.classes,
                partial(read, folder),
            )
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


def cross_validated(model: Classifier, ready: Prepared, folds: int, workers: int) -> Judged | None:
    """Return the train and val photos as judged by models that did not learn from them.

    None where the method has no such probabilities.
    """
    method = METHODS[model.about["method"]]
    if method.cross_validate is None:
        return None
    rows = ready.split("train") + ready.split("val")
    network = classifier.FOLDER / classifier.NETWORK
    probabilities = method.cross_validate(network, model.about, ready, folds, workers)
    return Judged(rows, probabilities, ready.targets(rows))


if __name__ == "__main__":
    run(evaluate)
