import csv
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from numpy.typing import NDArray
from tools import PHOTOS
from toys import SetParams

from meadow.cli import main
from meadow.commands import dandelion_grass
from meadow.evaluate import evaluate
from meadow.evaluation import label_issues
from meadow.experiments.recipes import read
from meadow.pipeline import manifest
from meadow.prepare import prepare
from meadow.train import train
from meadow.training.probe import Examples, fit


def table() -> list[dict[str, str]]:
    with Path("reports/review.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def noisy(seed: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw probabilities, and labels that mostly agree with them; the classes are uneven."""
    draw = np.random.default_rng(seed)
    share = draw.dirichlet(np.full(classes, 3.0))
    truth = draw.choice(classes, 200, p=share)
    logits = draw.normal(size=(200, classes)) + 2 * np.eye(classes)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = np.where(draw.random(200) < 0.15, draw.integers(0, classes, 200), truth)
    return probabilities, targets


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_the_formulas_are_those_of_cleanlab(seed: int, classes: int) -> None:
    """The quality of each label, and whether it is an issue."""
    probabilities, targets = noisy(seed, classes)

    quality = get_label_quality_scores(targets, probabilities, adjust_pred_probs=True)
    issues = find_label_issues(targets, probabilities, filter_by="confident_learning", n_jobs=1)
    assert label_issues.quality(probabilities, targets) == pytest.approx(quality, abs=1e-12)
    assert np.array_equal(label_issues.issues(probabilities, targets), issues)
    assert issues.any()


def test_a_class_without_photos_is_never_believed() -> None:
    """A small class may lie in the test split alone."""
    probabilities = np.array([[0.6, 0.1, 0.3], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    targets = np.array([0, 0, 1])

    assert not label_issues.issues(probabilities, targets).any()
    assert np.isfinite(label_issues.quality(probabilities, targets)).all()


@pytest.mark.parametrize("classes", [2, 4])
def test_flipped_labels_come_first(classes: int) -> None:
    """5 % of the labels are flipped: 80 % of these are in the top tenth of the list."""
    draw = np.random.default_rng(0)
    truth = draw.integers(0, classes, 300)
    features = draw.normal(size=(300, 12)) + 2.5 * np.eye(classes, 12)[truth]
    flipped = draw.choice(300, 15, replace=False)
    targets = truth.copy()
    targets[flipped] = (truth[flipped] + draw.integers(1, classes, 15)) % classes
    groups = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(300)]

    probabilities = np.exp(fit(Examples(features, targets, groups, classes)).held_out)
    first = np.argsort(label_issues.quality(probabilities, targets))[:30]
    assert len(set(first) & set(flipped)) >= 0.8 * 15


def test_the_list_has_every_train_and_val_photo_and_no_test_photo(in_built: Path) -> None:
    """The worst first; test labels that are corrected by what the model says would flatter it."""
    rows = {row.path: row for row in manifest.load().rows if row.split != "test"}
    suspects = table()

    assert {record["path"] for record in suspects} == set(rows)
    assert [int(record["rank"]) for record in suspects] == list(range(1, len(rows) + 1))
    fit = [float(record["quality"]) for record in suspects]
    assert fit == sorted(fit)
    for record in suspects:
        row = rows[record["path"]]
        assert (record["label"], record["sha256"]) == (row.label, row.sha256)
        if record["issue"] == "true":
            assert record["suggested"] != record["label"]


@pytest.mark.slow
@pytest.mark.needs("photos")
def test_flipped_photos_are_found_and_put_right(project: Path, set_params: SetParams) -> None:
    """Of 20 of the 400 web photos in the wrong folder 80 % are in the top tenth of the list.

    With these decided on by `meadow review`, the cross-validated accuracy is better.
    """
    raw = Path("data/raw")
    dandelion_grass.fetch(raw, PHOTOS)
    other = {"dandelion": "grass", "grass": "dandelion"}
    for path in random.Random(0).sample(sorted(raw.glob("*/*.jpg")), 20):
        path.rename(raw / other[path.parent.name] / f"flipped-{path.name}")
    set_params(**read("probe"))

    def accuracy() -> float:
        prepare()
        train()
        evaluate()
        return float(json.loads(Path("metrics/evaluate.json").read_text())["cv_accuracy"])

    before, suspects = accuracy(), table()
    flipped = {record["path"] for record in suspects if "flipped" in record["path"]}
    first = {record["path"] for record in suspects[: len(suspects) // 10]}
    assert len(first & flipped) >= 0.8 * len(flipped)

    for record in suspects:
        if record["path"] in first & flipped:
            main(["review", record["path"], "--relabel", other[record["label"]]])
    assert accuracy() > before + 0.02
