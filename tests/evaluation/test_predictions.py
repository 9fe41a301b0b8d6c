"""Answers to single photos, as one stage writes them and all others read them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from meadow.evaluation import label_issues, predictions
from meadow.pipeline.manifest import Row

CLASSES = ["gold", 'm"o,s\ns']


def rows() -> list[Row]:
    names = ["gold/0.jpg", "gold/new\nline.jpg", 'm"o,s\ns/1.jpg']
    return [
        Row(name, name.split("/")[0], "test", f"g{i}", f"sha {i}", "", 1, 1, 1)
        for i, name in enumerate(names)
    ]


def test_what_was_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with quotes and line breaks too, and in the order in which they were written."""
    monkeypatch.chdir(tmp_path)
    probabilities = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
    predictions.write(
        rows(),
        CLASSES,
        probabilities=probabilities,
        set_sizes=np.array([1, 2, 0]),
        distance=np.zeros(3),
        in_distribution=np.array([True, False, True]),
    )
    answers = predictions.load(predictions.TEST)

    assert [answer.path for answer in answers] == [row.path for row in rows()]
    assert [answer.label for answer in answers] == ["gold", "gold", CLASSES[1]]
    assert [answer.predicted for answer in answers] == ["gold", CLASSES[1], "gold"]
    assert [answer.confidence for answer in answers] == [0.9, 0.75, 0.5]
    assert [answer.p_label for answer in answers] == [0.9, 0.25, 0.5]
    assert [answer.set_size for answer in answers] == [1, 2, 0]
    assert [answer.in_distribution for answer in answers] == [True, False, True]
    assert [answer.correct for answer in answers] == [True, False, False]


def test_of_many_classes_a_line_has_the_likeliest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of them 50, and the label's; a column each would be gigabytes."""
    monkeypatch.chdir(tmp_path)
    classes = [f"class {i}" for i in range(200)]
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.full(200, 0.1), 3)
    photos = [
        Row(f"{i}.jpg", name, "test", f"g{i}", f"sha {i}", "", 1, 1, 1)
        for i, name in enumerate(rng.choice(classes, 3).tolist())
    ]
    predictions.write(
        photos,
        classes,
        probabilities=p,
        set_sizes=np.ones(3, np.int64),
        distance=np.zeros(3),
        in_distribution=np.ones(3, bool),
    )
    answers = predictions.load(predictions.TEST)

    assert [answer.predicted for answer in answers] == [classes[i] for i in p.argmax(axis=1)]
    assert [answer.confidence for answer in answers] == pytest.approx(p.max(axis=1), abs=1e-8)
    labels = [p[i, classes.index(row.label)] for i, row in enumerate(photos)]
    assert [answer.p_label for answer in answers] == pytest.approx(labels, abs=1e-8)
    with predictions.TEST.open(encoding="utf-8", newline="") as file:
        (first, *_) = csv.DictReader(file)
    likeliest = json.loads(first["likeliest"])
    assert list(likeliest) == [classes[i] for i in np.argsort(-p[0])[:50]]


def test_answers_out_of_fold_are_read_by_the_same_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """review.csv, the most doubtful label first."""
    monkeypatch.chdir(tmp_path)
    label_issues.write(rows(), np.array([[0.9, 0.1], [0.05, 0.95], [0.2, 0.8]]), CLASSES)
    answers = predictions.load(predictions.OUT_OF_FOLD)

    assert len(answers) == 3
    assert answers[0].path == "gold/new\nline.jpg"
    assert (answers[0].predicted, answers[0].confidence) == (CLASSES[1], 0.95)
    assert answers[0].p_label == 0.05


def test_no_photos_are_a_table_without_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method without probabilities out of fold leaves the same file, with its header alone."""
    monkeypatch.chdir(tmp_path)
    label_issues.write([], np.zeros((0, 2)), CLASSES)

    assert predictions.load(predictions.OUT_OF_FOLD) == []
    assert predictions.OUT_OF_FOLD.read_text().startswith("rank,path,label,suggested,issue,")


def test_a_table_without_hashes_is_refused() -> None:
    """As older versions wrote it: a path may be another photo's by now."""
    with pytest.raises(KeyError, match="sha256"):
        predictions.read(["path,label,predicted,p(a)\n", "a/1.jpg,a,a,0.9\n"])
