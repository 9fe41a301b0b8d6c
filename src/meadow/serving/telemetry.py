"""What the service tells of itself: metrics for Prometheus, a log of requests and of predictions.

No pixels, no names of files, no addresses. Nothing here makes a request wait: lines go
through a bounded line to one thread, and what does not fit is counted and dropped.
"""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meadow.serving.pool import Work
from meadow.serving.refusals import STATUS
from meadow.serving.settings import Settings

KEPT = 5  # files of events
WAITING = 10_000  # lines
EVERY = 0.25  # seconds between two writes
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))


class Telemetry:
    """Counts and writes; the number of series depends on routes and classes alone."""

    def __init__(self, settings: Settings, classes: Sequence[str], version: str) -> None:
        # Here, not above: BentoML first has to say where the processes meet.
        from prometheus_client import Counter, Gauge, Histogram

        self.settings = settings
        self.classes = classes
        self.version = version
        self.requests = Counter("meadow_requests", "Requests", ["route", "status"])
        self.seconds = Histogram(
            "meadow_request_seconds", "From first byte to last", ["route"], buckets=SECONDS
        )
        phases = Histogram(
            "meadow_phase_seconds", "Where a photo's time goes", ["phase"], buckets=SECONDS
        )
        self.phases = {name: phases.labels(name) for name in ("queue", "decode", "network")}
        self.batch = Histogram(
            "meadow_photos_per_request", "Photos of a request", buckets=(1, 2, 4, 8, 16)
        )
        rejects = Counter("meadow_rejects", "Refused requests and photos", ["reason"])
        self.rejects = {reason: rejects.labels(reason) for reason in STATUS}
        predicted = Counter("meadow_predictions", "Answers by class", ["label"])
        self.predicted = [predicted.labels(name) for name in classes]
        self.confidence = Histogram("meadow_confidence", "Of the answers", buckets=SHARES)
        self.unlike = Counter("meadow_out_of_distribution", "Answers to photos of something else")
        self.dropped = Counter("meadow_log_dropped", "Lines that were not written")
        info = Gauge("meadow_model_info", "Model", ["version"], multiprocess_mode="livemax")
        info.labels(version[:12]).set(1)
        self.writer = Writer(settings, self.dropped.inc)

    def request(
        self, method: str, route: str, status: int, seconds: float, request_id: str, **more: Any
    ) -> None:
        """Record one request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if self.settings.access_log:
            self.writer.access(
                {
                    "request_id": request_id,
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(1e3 * seconds, 2),
                    **more,
                }
            )

    def prediction(self, work: Work, best: int, request_id: str, size: int) -> None:
        """Record one answer to a photo of so many bytes."""
        for name, phase in self.phases.items():
            phase.observe(getattr(work, name))
        answer = work.answer
        confidence = float(answer.probabilities[best])
        self.predicted[best].inc()
        self.confidence.observe(confidence)
        if not answer.in_distribution:
            self.unlike.inc()
        if self.settings.events:
            self.writer.event(
                {
                    "request_id": request_id,
                    "model": self.version[:12],
                    "label": self.classes[best],
                    "probabilities": [round(float(p), 6) for p in answer.probabilities],
                    "set_size": int(answer.prediction_set.sum()),
                    "distance": round(answer.distance, 6),
                    "in_distribution": answer.in_distribution,
                    "brightness": work.brightness,
                    "contrast": work.contrast,
                    "bytes": size,
                }
            )


class Writer:
    """Writes JSON lines from a thread of its own, a few times a second."""

    def __init__(self, settings: Settings, dropped: Any) -> None:
        self.settings = settings
        self.dropped = dropped
        self.lines: deque[tuple[bool, float, dict[str, Any]]] = deque()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="log", daemon=True)
        self.thread.start()

    def access(self, line: dict[str, Any]) -> None:
        """Write a line to stdout."""
        self._add(False, line)

    def event(self, line: dict[str, Any]) -> None:
        """Write a line to the file of events."""
        self._add(True, line)

    def close(self) -> None:
        """Write what is left."""
        self.ending.set()
        self.thread.join(timeout=2)

    def _add(self, event: bool, line: dict[str, Any]) -> None:
        if len(self.lines) >= WAITING:
            self.dropped()
        else:
            self.lines.append((event, time.time(), line))

    def _run(self) -> None:
        while True:
            ended = self.ending.wait(EVERY)
            lines = [self.lines.popleft() for _ in range(len(self.lines))]
            try:
                self._write(lines)
            except (OSError, ValueError):  # the disk is full, the reader has gone
                self.dropped(len(lines))
            if ended:
                return

    def _write(self, lines: list[tuple[bool, float, dict[str, Any]]]) -> None:
        access = [_text(at, line) for event, at, line in lines if not event]
        events = [_text(at, line) for event, at, line in lines if event]
        if access:
            sys.stdout.write("".join(access))
            sys.stdout.flush()
        if events and self.settings.events:
            path = self.settings.events
            path.parent.mkdir(parents=True, exist_ok=True)
            _rotate(path, self.settings.events_size)
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(events))


def _text(at: float, line: dict[str, Any]) -> str:
    stamp = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": stamp, **line}, ensure_ascii=False) + "\n"


def _rotate(path: Path, size: int) -> None:
    if not path.exists() or path.stat().st_size < size:
        return
    for i in range(KEPT - 1, 0, -1):
        older = path.with_name(f"{path.name}.{i - 1}" if i > 1 else path.name)
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{i}"))
