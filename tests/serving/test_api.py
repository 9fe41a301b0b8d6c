import threading
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from starlette.testclient import TestClient
from toys import colour_classifier, encoded, photo

from meadow.inference.classifier import FOLDER, Classifier
from meadow.pipeline import atomic, provenance
from meadow.serving import api, pool
from meadow.serving.description import describe
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

        assert describe("x", classifier, settings).metrics == expected


def ask_batch(photos: list[bytes], **settings: int) -> list[dict[str, Any]]:
    """Answer a batch by a classifier of two colours."""
    colour_classifier(FOLDER, ["gold", "moss"])
    limits = Settings.model_validate(settings)
    service = Guard(api.create(Classifier.load(), limits, MagicMock()), limits, MagicMock())
    files = [("files", ("x", data)) for data in photos]
    answer = TestClient(service).post("/predict/batch", files=files)
    assert answer.status_code == 200
    predictions: list[dict[str, Any]] = answer.json()["predictions"]
    return predictions


def test_a_batch_is_worked_on_by_all_threads_at_once(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One client that sends one request keeps all cores busy."""
    meeting = threading.Barrier(3)
    classify = pool.classify

    def together(*arguments: Any) -> object:
        meeting.wait(30)
        return classify(*arguments)

    monkeypatch.setattr(api, "classify", together)

    assert all("label" in each for each in ask_batch([encoded(photo(1))] * 6, threads=3))


@pytest.mark.usefixtures("project")
def test_a_batch_longer_than_the_queue_is_taken_where_none_waits() -> None:
    """Else a service with a short queue would refuse it for ever."""
    assert all("label" in each for each in ask_batch([encoded(photo(1))] * 6, queue=2, threads=1))


def test_a_fault_with_one_photo_of_a_batch_spoils_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has a 500 in its place, and the log says why."""
    photos = [encoded(photo(number)) for number in range(3)]
    classify = pool.classify

    def failing(classifier: Classifier, data: bytes, *rest: Any) -> object:
        if data == photos[1]:
            raise MemoryError("no room")
        return classify(classifier, data, *rest)

    monkeypatch.setattr(api, "classify", failing)
    first, second, third = ask_batch(photos)

    assert second["error"]["code"] == 500
    assert {"label"} <= first.keys() & third.keys()
    assert "no room" in caplog.text
