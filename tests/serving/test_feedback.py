import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meadow.pipeline.intervals import wilson
from meadow.serving import feedback
from meadow.serving.feedback import Labels
from meadow.serving.refusals import Refused

VERSION = "0123456789ab"


class Service:
    """The events of a service, and what its gauges show: a file, and a dict."""

    def __init__(self, events: Path) -> None:
        self.events = events
        self.shown: dict[str, tuple[int, float, tuple[float, float]]] = {}
        self.full = False
        self.labels = self.started()

    def started(self, version: str = VERSION) -> Labels:
        telemetry: Any = self
        return Labels(self.events, ["gold", "moss"], version, telemetry)

    def answer(self, request_id: str, label: str = "gold", **more: object) -> None:
        self.write_event({"request_id": request_id, "model": VERSION, "label": label, **more})

    def write_event(self, line: dict[str, Any]) -> bool:
        stamp = datetime.now(UTC).isoformat()
        with self.events.open("a", encoding="utf-8") as file:
            file.write("" if self.full else f"{json.dumps({'time': stamp, **line})}\n")
        return not self.full

    def show_accuracy(
        self, sample: str, photos: int, accuracy: float, interval: tuple[float, float]
    ) -> None:
        self.shown[sample] = (photos, accuracy, interval)

    def label(self, request_id: str, label: str, **more: object) -> dict[str, Any]:
        body = json.dumps({"request_id": request_id, "label": label, **more})
        return self.labels.take(body.encode()).model_dump()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(feedback, "PAUSE", 0)
    return Service(tmp_path / "events.jsonl")


def test_a_label_is_joined_with_its_answer(service: Service) -> None:
    """By request, and place in it; the line says all that a reader needs."""
    service.answer("a", "moss", photo=0)
    service.answer("a", "gold", photo=1, kept=["random"])
    taken = service.label("a", "moss", photo=1)
    line = json.loads(service.events.read_text().splitlines()[-1])

    assert taken == {
        "request_id": "a", "photo": 1, "label": "moss", "answered": "gold", "model": VERSION,
        "replaces": None,
    }  # fmt: skip
    assert line.pop("time") > line.pop("answered_at")
    assert line == {
        "kind": "feedback", "request_id": "a", "photo": 1, "model": VERSION, "label": "moss",
        "answered": "gold", "random": True,
    }  # fmt: skip


def test_the_accuracy_is_shown_with_its_interval_and_the_fair_sample_alone(
    service: Service,
) -> None:
    """Photos that people chose say little of all photos; none at all is no accuracy of 0."""
    assert service.shown["all"][0] == 0
    assert math.isnan(service.shown["random"][1])
    for i, label in enumerate(["gold", "gold", "moss", "gold"]):
        service.answer(f"{i}", kept=["random", "far"] if i < 1 else ["unsure"])
        service.label(f"{i}", label)

    assert service.shown == {"all": (4, 3 / 4, wilson(3, 4)), "random": (1, 1.0, wilson(1, 1))}


def test_a_later_label_takes_the_place_of_the_one_before(service: Service) -> None:
    """Who slipped says it again; also after a restart, and by another worker."""
    service.answer("a")
    service.label("a", "moss")
    assert service.shown["all"][:2] == (1, 0.0)
    service.events.rename(service.events.with_name("events-2.jsonl"))
    service.labels = service.started()
    assert service.shown["all"][:2] == (1, 0.0)
    assert service.label("a", "gold")["replaces"] == "moss"
    assert service.shown["all"][:2] == (1, 1.0)


def test_labels_of_an_earlier_model_are_taken_and_do_not_count(service: Service) -> None:
    """The accuracy is that of the model that answers now."""
    service.answer("a")
    service.labels = service.started("another")
    assert service.label("a", "gold")["model"] == VERSION
    assert service.shown["all"][0] == 0


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (b"", "malformed", "body: Invalid JSON"),
        (b"[]", "malformed", "body: Input should be an object"),
        (b'{"request_id": "a"}', "malformed", "label: Field required"),
        (b'{"request_id": "a\\n", "label": "gold"}', "malformed", "request_id: String should"),
        (b'{"request_id": "a", "label": "gold", "photo": 16}', "malformed", "photo: Input"),
        (b'{"request_id": "a", "label": "gold", "x": 1}', "malformed", "x: Extra inputs"),
        (b'{"request_id": "a", "label": "Gold"}', "parameter", "'Gold' is no class: 'gold', 'mo"),
        (b'{"request_id": "b", "label": "gold"}', "unknown_id", "no answer to photo 0 of requ"),
        (b'{"request_id": "a", "label": "gold", "photo": 1}', "unknown_id", "answer to photo 1"),
        (b'{"request_id": "shadowed", "label": "gold"}', "unknown_id", "no answer to photo 0"),
    ],
)
def test_what_cannot_be_joined_is_refused_with_the_reason(
    service: Service, body: bytes, reason: str, words: str
) -> None:
    """And nothing is written."""
    service.answer("a")
    service.answer("shadowed", kind="shadow")
    before = service.events.read_bytes()
    with pytest.raises(Refused, match=words) as refused:
        service.labels.take(body)

    assert refused.value.reason == reason
    assert service.events.read_bytes() == before


def test_a_label_that_is_lost_is_not_said_to_be_taken(service: Service) -> None:
    """The disk is full."""
    service.answer("a")
    service.full = True
    with pytest.raises(Refused, match="could not be written"):
        service.label("a", "gold")
    assert service.shown["all"][0] == 0
