"""What the service tells of itself: metrics for Prometheus, a log of requests and of predictions.

No pixels, no names of files, no addresses. Nothing here makes a request wait: lines go
through a bounded queue to a thread, and what does not fit is counted and dropped.
"""

import json
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, cast

from meadow.inference.classifier import Classifier
from meadow.inference.reference import Reference
from meadow.inference.signals import DIGITS
from meadow.serving.drift_window import DriftWindow
from meadow.serving.exposition import Exemplars
from meadow.serving.pool import PHASES, Classified
from meadow.serving.refusals import REASONS
from meadow.serving.settings import Settings
from meadow.serving.tracing import Spans

KEPT = 5  # files of events
STATUSES = sorted({"200", *(str(reason.status) for reason in REASONS.values())})
WAITING = 10_000  # lines
PAUSE = 0.1  # seconds between two looks at them
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SHARES = tuple(tenth / 10 for tenth in range(1, 11))
SAMPLES = ("all", "random")  # of the answers that got a label: all, those drawn by chance
WHY = ("unsure", "far", "random")  # a photo is kept
DISTANCES = tuple(tenth / 10 for tenth in range(1, 21))
Ids = Mapping[str, Any]  # request_id; trace_id where the client sent one; place of a photo


class Telemetry:
    """Counts and writes; the number of series depends on routes and classes alone."""

    def __init__(
        self,
        settings: Settings,
        classifier: Classifier,
        worker: int = 1,
        reference: Reference | None = None,
    ) -> None:
        # Here, not above: BentoML first has to say where the processes meet.
        from prometheus_client import Counter, Gauge, Histogram

        self.classifier = classifier
        self.requests = Counter("meadow_requests", "Requests", ["route", "status"])
        self.seconds = Histogram(
            "meadow_request_seconds", "From first byte to last", ["route"], buckets=SECONDS
        )
        self.exemplars = Exemplars("meadow_request_seconds", SECONDS)
        phases = Histogram(
            "meadow_phase_seconds", "Where a photo's time goes", ["phase"], buckets=SECONDS
        )
        self.phases = {name: phases.labels(name) for name in PHASES}
        self.batch = Histogram(
            "meadow_photos_per_request", "Photos of a request", buckets=(1, 2, 4, 8, 16)
        )
        rejects = Counter("meadow_rejects", "Refused requests and photos", ["reason"])
        self.rejects = {reason: rejects.labels(reason) for reason in REASONS}
        predicted = Counter("meadow_predictions", "Answers by class", ["label"])
        self.predicted = [predicted.labels(name) for name in classifier.classes]
        self.confidence = Histogram("meadow_confidence", "Of the answers", buckets=SHARES)
        self.distance = Histogram(
            "meadow_distance", "To what was learned from, of the answers", buckets=DISTANCES
        )
        self.unlike = Counter("meadow_out_of_distribution", "Answers to photos of something else")
        self.dropped = Counter("meadow_log_dropped", "Lines that were not written")
        info = Gauge("meadow_model_info", "Model", ["version"], multiprocess_mode="livemax")
        info.labels(classifier.version[:12]).set(1)
        self.drift = None
        if reference:
            drift = Gauge(
                "meadow_drift", "Of the last 200 photos; from 1 on it is no chance", ["signal"],
                multiprocess_mode="livemax",
            )  # fmt: skip
            gauges = {name: drift.labels(name) for name in reference.signals}
            self.drift = DriftWindow(reference, lambda name, value: gauges[name].set(value))
        self.spans = Spans.asked_for(classifier.version[:12])
        kept = Counter("meadow_kept_photos", "Photos that were kept", ["why"])
        self.kept = {why: kept.labels(why) for why in WHY}
        self.not_kept = Counter("meadow_keep_dropped", "Photos that were to be kept, and are not")
        self.labelled = Gauge(
            "meadow_labelled_photos", "Answers in the events whose label came back", ["sample"],
            multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.accuracy = Gauge(
            "meadow_accuracy", "Of these answers, with its 95 % interval", ["sample", "bound"],
            multiprocess_mode="mostrecent",
        )  # fmt: skip
        self.access = self.events = None
        if settings.access_log:
            self.access = Lines(logging.StreamHandler(sys.stdout), self.dropped.inc)
        if settings.events:
            self.events = Lines(event_file(settings.events, settings, worker), self.dropped.inc)

    def expect(self, routes: Iterable[str]) -> None:
        """Have a series for each status of each route from the start.

        Prometheus does not see the first increment of a series that comes with it.
        """
        for route in (*routes, "other"):
            self.seconds.labels(route)
            for status in STATUSES:
                self.requests.labels(route, status)

    def close(self) -> None:
        """Write what is left of the logs, and send what is left of the spans."""
        for output in (self.access, self.events, self.spans):
            if output:
                output.close()

    def request(
        self, method: str, route: str, status: int, seconds: float, ids: Ids, **more: Any
    ) -> None:
        """Record one request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if trace := ids.get("trace_id"):
            self.exemplars.see(route, seconds, trace)
        if self.access:
            self.access.write(
                {
                    **ids,
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(1e3 * seconds, 2),
                    **more,
                }
            )

    def prediction(self, classified: Classified, ids: Ids, size: int) -> None:
        """Record one answer to a photo of so many bytes."""
        for name, phase in self.phases.items():
            phase.observe(getattr(classified, name))
        answer = classified.answer
        self.predicted[answer.best].inc()
        self.confidence.observe(float(answer.probabilities[answer.best]))
        self.distance.observe(answer.distance)
        if not answer.in_distribution:
            self.unlike.inc()
        line = event(classified, self.classifier, ids, size)
        if self.drift:
            self.drift.add({**line, "confidence": max(line["probabilities"])})
        if self.events:
            self.events.write(line)

    def write_event(self, line: dict[str, Any]) -> bool:
        """Write a line of the events now, and return whether that went well."""
        return self.events is not None and self.events.write_now(line)

    def show_accuracy(
        self, sample: str, photos: int, accuracy: float, interval: tuple[float, float]
    ) -> None:
        """Show the accuracy by the labels that came back; NaN where there are none."""
        self.labelled.labels(sample).set(photos)
        low, high = interval
        for bound, value in (("low", low), ("estimate", accuracy), ("high", high)):
            self.accuracy.labels(sample, bound).set(value)


def event(classified: Classified, classifier: Classifier, ids: Ids, size: int) -> dict[str, Any]:
    """Return what is written of the answer to a photo of so many bytes."""
    answer = classified.answer
    return {
        **ids,
        "model": classifier.version[:12],
        "label": classifier.classes[answer.best],
        "probabilities": [round(float(p), DIGITS) for p in answer.probabilities],
        "set_size": int(answer.prediction_set.sum()),
        "in_distribution": answer.in_distribution,
        "distance": round(answer.distance, DIGITS),
        **classified.look,
        "bytes": size,
    }


class Lines:
    """JSON lines that a thread of their own writes; what does not fit or fails is dropped.

    It wakes ten times a second, not for each line, which would take a core from the photos.

    Args:
        handler: writes them.
        dropped: is called for each line that is not written.

    """

    def __init__(self, handler: logging.Handler, dropped: Callable[[], None]) -> None:
        handler.setFormatter(_Json())
        handler.handleError = self._lose  # type: ignore[method-assign]
        self.handler = handler
        self.dropped = dropped
        self.waiting: deque[logging.LogRecord] = deque()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def write(self, line: dict[str, Any]) -> None:
        """Have a line written; returns at once."""
        if len(self.waiting) >= WAITING:
            self.dropped()
        else:
            self.waiting.append(logging.makeLogRecord({"msg": line}))

    def write_now(self, line: dict[str, Any]) -> bool:
        """Write a line before returning; return whether that went well."""
        record = logging.makeLogRecord({"msg": line})
        self.handler.handle(record)
        return not hasattr(record, "lost")

    def _lose(self, record: logging.LogRecord) -> None:
        """Count a line that cannot be written: the disk is full, the reader has gone."""
        record.lost = True
        self.dropped()

    def close(self) -> None:
        """Write what is left, for two seconds at most."""
        self.ended.set()
        self.thread.join(2)

    def _run(self) -> None:
        while not self.ended.wait(PAUSE):
            self._drain()
        self._drain()
        self.handler.close()

    def _drain(self) -> None:
        while self.waiting:
            self.handler.handle(self.waiting.popleft())


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        return json.dumps({"time": stamp, **cast("dict[str, Any]", record.msg)}, ensure_ascii=False)


def event_file(path: Path, settings: Settings, worker: int) -> logging.Handler:
    """Return what writes events, in files of bounded size.

    Of several workers each has files of its own, such as `events-2.jsonl`: two processes cannot
    rotate one file.
    """
    if settings.workers > 1:
        path = path.with_stem(f"{path.stem}-{worker}")
    with suppress(OSError):  # each line says so by being dropped
        path.parent.mkdir(parents=True, exist_ok=True)
    return RotatingFileHandler(
        path, maxBytes=settings.events_size, backupCount=KEPT - 1, encoding="utf-8", delay=True
    )
