import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient
from toys import TINTS, colour_classifier, encoded, photo

from meadow.errors import MeadowError
from meadow.inference.classifier import Classifier
from meadow.pipeline.image import Preprocessing
from meadow.serving import api
from meadow.serving.middleware import Guard
from meadow.serving.settings import Settings
from meadow.serving.shadow import OUTCOMES, WAITING, Shadow

CLASSES = ["gold", "moss"]
PHOTOS = [encoded(photo(number, TINTS[number % 2])) for number in range(12)]
IN_LINE = WAITING + 2  # one in work, and one ready for its thread
Then = Callable[[TestClient], None]


class Session:
    """A network that does something else first."""

    def __init__(self, real: Any, first: Callable[[], object]) -> None:
        self.real, self.first = real, first

    def run(self, *arguments: Any) -> list[np.ndarray]:
        """Do that, then run."""
        self.first()
        answer: list[np.ndarray] = self.real.run(*arguments)
        return answer


@pytest.fixture
def model(tmp_path: Path) -> Classifier:
    """Return the model whose answers clients get."""
    return Classifier.load(colour_classifier(tmp_path / "model", CLASSES))


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Classifier]:
    """Return another, with a larger input; its metrics end with the test."""
    others = set(REGISTRY._collector_to_names)
    larger = Preprocessing(48, "squash")
    yield Classifier.load(colour_classifier(tmp_path / "second", CLASSES, preprocessing=larger))
    for collector in set(REGISTRY._collector_to_names) - others:
        REGISTRY.unregister(collector)


def answers(
    model: Classifier, second: Classifier | None, then: Then | None = None, telemetry: Any = None
) -> list[dict[str, Any]]:
    """Ask a service for answers to all photos, one after the other, then do something."""
    settings = Settings()
    app = api.create(model, settings, telemetry or MagicMock(), second)
    with TestClient(Guard(app, settings, MagicMock())) as client:
        sent = [client.post("/predict", content=data) for data in PHOTOS]
        if then:
            then(client)
    assert {answer.status_code for answer in sent} == {200}
    return [answer.json() for answer in sent]


def counts() -> dict[str, int]:
    name = "meadow_shadow_photos_total"
    return {key: int(REGISTRY.get_sample_value(name, {"outcome": key}) or 0) for key in OUTCOMES}


def done(photos: int) -> Then:
    """Return a function that waits until something has become of so many photos."""

    def wait(client: TestClient) -> None:
        while sum(counts().values()) < photos:
            client.get("/livez")

    return wait


def test_one_that_stands_still_changes_no_answer_and_holds_up_none(
    model: Classifier, second: Classifier
) -> None:
    """Clients have all answers before it has given one; what finds its line full is dropped."""
    alone = answers(model, None)
    warm, may = [0, 0], threading.Event()
    session = Session(second.session, lambda: warm.pop() if warm else may.wait(60))

    def look(client: TestClient) -> None:
        done(len(PHOTOS) - IN_LINE)(client)
        assert counts() == {"agreed": 0, "differed": 0, "failed": 0, "dropped": 12 - IN_LINE}
        may.set()
        done(len(PHOTOS))(client)

    assert answers(model, replace(second, session=session), look) == alone
    assert counts() == {"agreed": IN_LINE, "differed": 0, "failed": 0, "dropped": 12 - IN_LINE}


def test_one_that_fails_changes_no_answer(
    model: Classifier, second: Classifier, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted, and the log says why."""
    alone = answers(model, None)
    warm = [0, 0]
    session = Session(second.session, lambda: warm.pop() if warm else 1 / 0)
    caplog.clear()

    assert answers(model, replace(second, session=session), done(len(PHOTOS))) == alone
    tally = counts()
    assert tally["failed"] > 0
    assert tally["failed"] + tally["dropped"] == len(PHOTOS)
    assert "division by zero" in caplog.text


def test_its_answers_are_events_beside_those_that_were_sent(
    model: Classifier, second: Classifier
) -> None:
    """With request id and both labels, whatever the size of its input."""
    telemetry = MagicMock()
    red = Session(second.session, lambda: None)
    real = red.run
    red.run = lambda *arguments: [real(*arguments)[0][:, ::-1], real(*arguments)[1]]  # type: ignore[method-assign]
    sent = answers(model, replace(second, session=red), done(len(PHOTOS)), telemetry)
    events = [call.args[0] for call in telemetry.events.write.call_args_list]
    labels = {(event["sent"]["label"], event["label"]) for event in events}

    assert counts()["differed"] == len(events) > 0
    assert labels <= {("gold", "moss"), ("moss", "gold")}
    assert {event["kind"] for event in events} == {"shadow"}
    assert {event["model"] for event in events} == {second.version[:12]}
    assert {event["sent"]["model"] for event in events} == {sent[0]["model"]["version"]}


def test_it_is_passed_over_while_photos_wait_for_the_first(
    model: Classifier, second: Classifier
) -> None:
    """What CPU there is belongs to clients."""
    shadow = Shadow(second, model, lambda: True, 10**6, MagicMock())
    shadow.offer(PHOTOS[0], model.predict(PHOTOS[0]), {"request_id": "a"})

    assert counts() == {"agreed": 0, "differed": 0, "failed": 0, "dropped": 1}


def test_one_that_cannot_be_compared_stops_the_start(
    model: Classifier, second: Classifier, tmp_path: Path
) -> None:
    """Other classes have no agreement, and the same network has no differences."""
    third = Classifier.load(colour_classifier(tmp_path / "third", ["gold", "moss", "plum"]))
    for other, words in ((third, "has the classes gold, moss, plum"), (model, "the same network")):
        with pytest.raises(MeadowError, match=words):
            Shadow(other, model, lambda: False, 10**6, MagicMock())
