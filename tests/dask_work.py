"""What tests have Dask workers do: it is imported there by its name."""

import os
import time
from pathlib import Path
from typing import Any


class Recorder:
    """Notes each item in a file when it is begun, takes a while, and returns its square."""

    def __init__(self, record: Path, seconds: float) -> None:
        self.record, self.seconds = record, seconds

    def __call__(self, item: int) -> int:
        with self.record.open("a") as file:
            file.write(f"{os.getpid()} {item}\n")
        time.sleep(self.seconds)
        return item * item


class Heavy(Recorder):
    """Notes where it is unpacked, too; it is as large as a network."""

    def __init__(self, record: Path, unpacked: Path) -> None:
        super().__init__(record, 0.005)
        self.unpacked, self.weights = unpacked, bytes(20_000_000)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be unpacked."""
        self.__dict__.update(state)
        with self.unpacked.open("a") as file:
            file.write(f"{os.getpid()}\n")


def fail_at_40(item: int) -> int:
    """Return the item, or fail."""
    if item == 40:
        raise ValueError("forty")
    return item


def end_the_worker(item: int) -> int:
    """End the process, as the system does when memory is short."""
    if item == 40:
        os.kill(os.getpid(), 9)
    return item
