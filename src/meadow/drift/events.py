"""The service's events, read line by line from files or from addresses."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

from meadow.drift.tally import Tally
from meadow.errors import MeadowError
from meadow.inference.signals import LATER, SIGNALS

CHUNK = 10_000  # events at once
LABELS = 100_000  # that are joined at most


@dataclass(frozen=True)
class Label:
    """The true label of an answer, as it came back.

    Attributes:
        time: when it came.
        correct: whether it is what was answered.
        random: whether the photo was kept by chance: only such are like all photos.

    """

    time: str
    correct: bool
    random: bool


@dataclass
class Passed:
    """What is not an answer of the model, or does not count as one.

    Attributes:
        damaged, of_other_models, earlier: how many lines, and why.
        labels: by request and place in it, the latest of each.

    """

    damaged: int = 0
    other_models: set[str] = field(default_factory=set)
    of_other_models: int = 0
    earlier: int = 0
    labels: dict[tuple[str, int], Label] = field(default_factory=dict)

    def label(self, event: Mapping[str, Any], since: str) -> None:
        """Take a label; of very many the latest `LABELS`."""
        key = str(event["request_id"]), int(event["photo"])
        label = Label(event["time"], event["label"] == event["answered"], event["random"])
        if event["answered_at"] < since:
            self.earlier += 1
        elif key not in self.labels or self.labels[key].time <= label.time:
            self.labels.pop(key, None)
            self.labels[key] = label
            if len(self.labels) > LABELS:
                del self.labels[next(iter(self.labels))]


def count(
    sources: Sequence[str], tally: Tally, classes: Sequence[str], version: str, since: str = ""
) -> Passed:
    """Count the events of one model, in the order in which they are read.

    Args:
        sources: files, or addresses that fsspec knows (https, s3). Of `events.jsonl` the rotated
            files `events.jsonl.4` to `.1` are read before it, where they are.
        tally: counts them.
        classes: the model's.
        version: its SHA-256, or the beginning.
        since: earlier events do not count; a time as in the events.

    Raises:
        MeadowError: a source cannot be read.

    """
    passed = Passed()
    index = {name: i for i, name in enumerate(classes)}
    model = version[:12]
    times: list[str] = []
    rows: list[list[float]] = []
    predicted: list[int] = []
    room = min(tally.room, CHUNK)

    def flush() -> None:
        if times:
            tally.add(times, np.array(rows), np.array(predicted))
            for gathered in (times, rows, predicted):
                gathered.clear()

    for line in _lines(sources):
        if line.startswith(b" "):  # forgotten: see `meadow data forget`
            continue
        try:
            event = json.loads(line)
            if event["model"] != model:
                if event.get("kind") == "shadow":
                    continue
                passed.of_other_models += 1
                passed.other_models.add(str(event["model"])[:12])
                continue
            if event.get("kind") == "feedback":
                passed.label(event, since)
                continue
            if event["time"] < since:
                passed.earlier += 1
                continue
            event["confidence"] = max(event["probabilities"])
            missing = LATER if LATER[0] not in event else ()
            row = [0.0 if name in missing else float(event[name]) for name in SIGNALS]
            label = index[event["label"]]
            if not math.isfinite(sum(row)):
                raise ValueError(row)
            if missing:
                row = [math.nan if name in missing else row[i] for i, name in enumerate(SIGNALS)]
        except (ValueError, KeyError, TypeError, RecursionError):
            passed.damaged += 1
            continue
        times.append(event["time"])
        rows.append(row)
        predicted.append(label)
        if len(times) == room:
            flush()
            room = min(tally.room, CHUNK)
    flush()
    return passed


def of_kind(kind: str, sources: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the events of one kind, such as `shadow`; lines that are none are passed over.

    Raises:
        MeadowError: a source cannot be read.

    """
    mark = f'"kind": "{kind}"'.encode()
    for line in _lines(sources):
        if mark in line:
            with suppress(ValueError, RecursionError):
                event = json.loads(line)
                if isinstance(event, dict) and event.get("kind") == kind:
                    yield event


def utc(text: str) -> str:
    """Return a time as events have it.

    Raises:
        MeadowError: it is no time in ISO 8601.

    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise MeadowError(
            f"--since {text!r} is no time such as 2026-11-25 or 2026-11-25T10:00+01:00."
        ) from None
    return time.astimezone(UTC).isoformat(timespec="milliseconds")


def _lines(sources: Sequence[str]) -> Iterator[bytes]:
    for source in sources:
        files: list[str] = [source]
        if "://" not in source:
            older = Path(source).parent.glob(f"{Path(source).name}.[0-9]*")
            files = [*sorted(map(str, older), key=_age, reverse=True), source]
        for file in files:
            try:
                with fsspec.open(file, "rb") as lines:  # a path is local
                    yield from lines
            except Exception as error:  # each protocol has its own
                raise MeadowError(
                    f"events cannot be read from {file}: {error}. Name the file or files that"
                    " MEADOW_EVENTS of the service names."
                ) from None


def _age(name: str) -> int:
    end = name.rpartition(".")[2]
    return int(end) if end.isdecimal() else 0
