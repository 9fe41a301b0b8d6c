"""Memory of the service's processes, and how much they may have: gauges for Prometheus."""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from meadow.pipeline.cpu import group_settings


class Memory(Collector):
    """Looks when it is asked; any worker can answer for all.

    Args:
        folder: where each worker keeps its metrics, in files that end in its process's number.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return both gauges."""
        yield GaugeMetricFamily(
            "meadow_memory_bytes", "Resident memory of the workers", value=self._resident()
        )
        yield GaugeMetricFamily(
            "meadow_memory_limit_bytes", "Of the control group, or of the machine", value=limit()
        )

    def _resident(self) -> int:
        total = 0
        for worker in {file.stem.rpartition("_")[2] for file in self.folder.glob("*.db")}:
            with suppress(psutil.NoSuchProcess):  # it was killed, and another took its place
                total += psutil.Process(int(worker)).memory_info().rss
        return total


def limit() -> int:
    """Return the bytes that this process's control groups allow, at most those of the machine."""
    texts = [text.strip() for text in group_settings("memory.max")]
    machine: int = psutil.virtual_memory().total
    return min([machine, *(int(text) for text in texts if text != "max")])
