"""What `/metrics` answers: the metrics of all workers, with traces where a client asks for them."""

import os
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Exemplar

OPENMETRICS = "application/openmetrics-text"


class Exemplars:
    """The last trace in each bucket of the histogram of requests, of this worker.

    `prometheus_client` keeps none where several processes write its files.

    Args:
        metric: name of the histogram, whose label is `route`.
        buckets: upper ends, rising.

    """

    def __init__(self, metric: str, buckets: Sequence[float]) -> None:
        self.bucket = f"{metric}_bucket"
        self.ends = (*buckets, inf)
        self.last: dict[tuple[str, float], Exemplar] = {}

    def see(self, route: str, seconds: float, trace: str) -> None:
        """Take one request."""
        end = self.ends[bisect_left(self.ends, seconds)]
        from prometheus_client.samples import Exemplar

        self.last[route, end] = Exemplar({"trace_id": trace}, seconds, time.time())

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics of all workers, with the exemplars."""
        from prometheus_client.multiprocess import MultiProcessCollector

        for metric in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
            for number, sample in enumerate(metric.samples):
                if sample.name == self.bucket:
                    key = sample.labels["route"], float(sample.labels["le"])
                    metric.samples[number] = sample._replace(exemplar=self.last.get(key))
            yield metric


def exposition(exemplars: Exemplars, accept: str) -> tuple[bytes, str]:
    """Return the metrics as Prometheus reads them, and their content type.

    Args:
        exemplars: those of this worker; OpenMetrics alone has room for them.
        accept: the header, of which nothing but OpenMetrics' name counts.

    """
    import prometheus_client
    from prometheus_client import CollectorRegistry, openmetrics

    from meadow.serving.memory import Memory

    registry = CollectorRegistry()
    registry.register(exemplars)
    registry.register(Memory(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
    if OPENMETRICS in accept.lower():
        form = openmetrics.exposition
        text = form.generate_latest(registry)  # type: ignore[no-untyped-call]
        return text, form.CONTENT_TYPE_LATEST
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST
