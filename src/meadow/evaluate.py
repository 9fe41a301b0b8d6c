"""Measure the served classifier on the test photos, which no earlier stage reads.

Reads:  models/classifier/, data/prepared/, the test photos (data.dir), metrics/released.csv,
        section `evaluate` of params.yaml.
Writes: metrics/evaluate.json, metrics/gate.json, metrics/plots/ (confusion.csv, roc.csv,
        reliability.csv, abstention.csv), and in reports/ what the report is made of:
        predictions.csv, classes.csv, review.csv (labels of train and val photos that may be wrong;
        only its header where the method has no probabilities out of fold to judge them by) and
        provenance.json (what was measured, with which parameters and packages).
"""

import platform
from collections.abc import Iterator
from importlib.metadata import version

import numpy as np

from meadow import params
from meadow.errors import run
from meadow.evaluation import gate, label_issues, metrics, predictions, tables
from meadow.evaluation.answers import answers
from meadow.inference import classifier
from meadow.inference.classifier import Classifier
from meadow.pipeline import atomic, manifest, places, provenance
from meadow.pipeline.manifest import Prepared, Row
from meadow.pipeline.probabilities import Floats, Rows, collected, stored

PACKAGES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow")


def evaluate() -> None:
    """Run the stage."""
    chosen = params.load()
    p, ready, model = chosen.evaluate, manifest.load(), Classifier.load()
    rows = ready.split("test")
    targets = ready.targets(rows)
    where, facts = places.place(chosen.data.dir), np.empty((4, len(rows)))

    def asked() -> Iterator[Floats]:
        every = answers(model, where, rows, chosen.runtime.machines)
        for i, answer in enumerate(every):
            held = answer.prediction_set
            facts[:, i] = held.sum(), held[targets[i]], answer.in_distribution, answer.distance
            yield answer.probabilities

    probabilities = collected(asked(), targets, len(model.classes))
    set_sizes, near, distance = facts[0].astype(np.int64), facts[2] > 0, facts[3]
    figures = {**metrics.summary(probabilities, targets), "n_test": len(rows)}
    figures |= metrics.set_figures(set_sizes, holds=facts[1] > 0)
    figures |= {"in_distribution": float(near.mean())}
    figures |= metrics.answered_figures(probabilities, targets, set_sizes, near)
    others, out_of_fold = cross_validated(ready)
    if others:
        cv = metrics.summary(out_of_fold, ready.targets(others))
        figures |= {f"cv_{name}": value for name, value in cv.items()} | {"cv_n": len(others)}
    verdict = gate.verdict(figures, rows, probabilities, targets, p)

    tables.write_plots(probabilities, targets, model.classes)
    tables.write_classes(probabilities, targets, model.classes)
    predictions.write(
        rows,
        model.classes,
        probabilities=probabilities,
        set_sizes=set_sizes,
        distance=distance,
        in_distribution=near,
    )
    label_issues.write(others, out_of_fold, model.classes)
    atomic.write_json(provenance.VERDICT, verdict)
    atomic.write_json(provenance.FIGURES, figures)
    atomic.write_json(provenance.FILE, measured(model, p))
    print(
        f"{len(rows)} test photos: accuracy {figures['accuracy']:.1%}"
        f" ({figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}),"
        f" log-loss {figures['log_loss']:.3f}; gate {'passed' if verdict['passed'] else 'failed'}"
    )


def cross_validated(ready: Prepared) -> tuple[list[Row], Rows]:
    """Return what train's cross-validation says of each train and val photo.

    Returns:
        The photos and their probabilities, (n, classes); no photos, (0, classes), where the method
        is not cross-validated.

    """
    file = classifier.FOLDER / classifier.HELD_OUT
    if not file.exists():
        return [], np.zeros((0, len(ready.classes)))
    p = stored(np.load(file), len(ready.classes))
    if isinstance(p, np.ndarray):
        p /= p.sum(axis=1, keepdims=True)  # they were rounded to float32
    return ready.split("train") + ready.split("val"), p


def measured(model: Classifier, p: params.Evaluate) -> dict[str, object]:
    """Return what was measured, with what, and the hashes of the figures and the verdict on it."""
    table = manifest.FOLDER / "manifest.csv"
    return {
        provenance.MODEL: model.version,
        **provenance.sha256(table, provenance.FIGURES, provenance.VERDICT),
        **{f"evaluate.{key}": value for key, value in p.model_dump().items()},
        **{name: version(name) for name in PACKAGES},
        "Python": platform.python_version(),
    }


if __name__ == "__main__":
    run(evaluate)
