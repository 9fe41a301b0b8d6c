from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from starlette.testclient import TestClient
from toys import colour_classifier, encoded, photo

from meadow.inference.classifier import FOLDER, Classifier
from meadow.pipeline import atomic, provenance
from meadow.serving import api, pool
from meadow.serving.middleware import Guard
from meadow.serving.settings import Settings


def test_a_model_is_described_with_its_own_figures_alone(project: Path) -> None:
    """After `dvc repro train` alone, metrics/evaluate.json is of the model before."""
    colour_classifier(FOLDER, ["gold", "moss"])
    classifier, settings = Classifier.load(), Settings()
    for model, expected in ((classifier.version, {"accuracy": 0.9}), ("another", None)):
        atomic.write_json(provenance.FIGURES, {"accuracy": 0.9})
        measured = provenance.sha256(provenance.FIGURES)
        atomic.write_json(provenance.FILE, {provenance.MODEL: model, **measured})

        assert api._describe(classifier, settings).metrics == expected


def test_a_fault_with_one_photo_of_a_batch_spoils_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a 500 in its place, and the log says why."""
    colour_classifier(FOLDER, ["gold", "moss"])
    service = Guard(api.create(Classifier.load(), Settings(), MagicMock()), Settings(), MagicMock())
    photos = [encoded(photo(number)) for number in range(3)]
    classify = pool.classify

    def failing(classifier: Classifier, data: bytes, *rest: Any) -> object:
        if data == photos[1]:
            raise MemoryError("no room")
        return classify(classifier, data, *rest)

    monkeypatch.setattr(api, "classify", failing)
    files = [("files", ("x", data)) for data in photos]
    answer = TestClient(service).post("/predict/batch", files=files)
    first, second, third = answer.json()["predictions"]

    assert answer.status_code == 200
    assert second["error"]["code"] == 500
    assert {"label"} <= first.keys() & third.keys()
    assert "no room" in caplog.text
