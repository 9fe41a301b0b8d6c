"""Work on many items at once, in order, in bounded memory, with a progress bar."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")
BATCH = 64  # items in flight: 10 MB of photos at 224 px


def cores(workers: int) -> int:
    """Return the number of threads that `runtime.workers` stands for: 0 is one per usable core."""
    return workers or len(os.sched_getaffinity(0))


def ordered(work: Callable[[T], R], items: Sequence[T], *, workers: int, title: str) -> Iterator[R]:
    """Yield `work(item)` for each item, in order.

    Threads, not processes: Pillow, NumPy, ONNX Runtime and PyTorch work outside Python's lock.
    At most `BATCH` results wait at any time. The bar appears on a terminal only.
    """
    with (
        ThreadPoolExecutor(cores(workers)) as pool,
        tqdm(total=len(items), desc=title, unit="photo", disable=None) as bar,
    ):
        for start in range(0, len(items), BATCH):
            for result in pool.map(work, items[start : start + BATCH]):
                yield result
                bar.update()
