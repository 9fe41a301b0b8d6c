"""True labels that come back: joined with the answers in the events, written down, and counted.

The events are all that there is: a label is one more line of theirs, with what was answered, so it
holds after its answer is rotated away, and other readers need no join. Of two labels of one photo
the later holds. Accuracy is that of the labels in the files, so a restart forgets none.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from meadow.pipeline.intervals import wilson
from meadow.serving import event_files, schema
from meadow.serving.refusals import Refused
from meadow.serving.telemetry import SAMPLES, Telemetry

MAX_BODY = 2048  # bytes
KIND = "feedback"
SHOWN = 20  # classes in a message
PAUSE = 0.3  # seconds, in which the line of an answer is written


class Labels:
    """Takes labels for the answers of one model.

    Args:
        events: file of the answers, and of the labels.
        classes: the model's.
        version: its version, as in events.
        telemetry: writes and shows them.

    """

    def __init__(
        self, events: Path, classes: Sequence[str], version: str, telemetry: Telemetry
    ) -> None:
        self.events = events
        self.classes = classes
        self.version = version
        self.telemetry = telemetry
        self._show(line.event for line in event_files.lines(events, _mark("kind", KIND)))

    def take(self, body: bytes) -> schema.Labelled:
        """Write down one label, and return what it is about.

        Args:
            body: JSON of a `schema.Feedback`.

        Raises:
            Refused: malformed; an unknown class or answer; it could not be written.

        """
        try:
            given = schema.Feedback.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise Refused("malformed", f"{where}: {first['msg']}") from None
        if given.label not in self.classes:
            known = ", ".join(map(repr, self.classes[:SHOWN]))
            more = f" and {len(self.classes) - SHOWN} more" * (len(self.classes) > SHOWN)
            raise Refused("parameter", f"label {given.label[:50]!r} is no class: {known}{more}")
        answer, labels = self._look(given)
        if not answer:  # or its line is just being written
            time.sleep(PAUSE)
            answer, labels = self._look(given)
        if not answer:
            raise Refused(
                "unknown_id",
                f"no answer to photo {given.photo} of request {given.request_id} is in the events"
                " of this instance; they hold the latest",
            )
        key = (given.request_id, given.photo)
        before = max((e for e in labels if _key(e) == key), key=_time, default=None)
        line = {
            "kind": KIND,
            "request_id": given.request_id,
            "photo": given.photo,
            "model": answer["model"],
            "label": given.label,
            "answered": answer["label"],
            "answered_at": answer["time"],
            "random": "random" in answer.get("kept", ()),
        }
        if not self.telemetry.write_event(line):
            raise Refused("fault", "the label could not be written")
        self._show([*labels, {"time": datetime.now(UTC).isoformat(), **line}])
        return schema.Labelled(
            **given.model_dump(),
            answered=answer["label"],
            model=answer["model"],
            replaces=before["label"] if before else None,
        )

    def _look(self, given: schema.Feedback) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
        """Return the newest answer to a photo, or None, and all labels that are there."""
        answers, labels = [], []
        marks = _mark("request_id", given.request_id), _mark("kind", KIND)
        for line in event_files.lines(self.events, *marks):
            event = line.event
            if event.get("kind") == KIND:
                labels.append(event)
            elif "kind" not in event and _key(event) == (given.request_id, given.photo):
                answers.append(event)
        return max(answers, key=_time, default=None), labels

    def _show(self, labels: Iterable[Mapping[str, Any]]) -> None:
        """Set the gauges to the accuracy by the latest label of each photo."""
        latest = {_key(e): e for e in sorted(labels, key=_time) if e["model"] == self.version}
        for sample in SAMPLES:
            hits = [
                event["label"] == event["answered"]
                for event in latest.values()
                if sample == "all" or event["random"]
            ]
            n, correct = len(hits), sum(hits)
            accuracy = correct / n if n else float("nan")
            self.telemetry.show_accuracy(sample, n, accuracy, wilson(correct, n))


def _mark(name: str, value: str) -> str:
    return f'"{name}": "{value}"'


def _key(event: Mapping[str, Any]) -> tuple[str, int]:
    return event["request_id"], event.get("photo", 0)


def _time(event: Mapping[str, Any]) -> str:
    return str(event["time"])
