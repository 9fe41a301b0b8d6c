"""Work on many items at once, in order, in bounded memory, with a progress bar."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from tqdm import tqdm

from meadow.pipeline.cpu import cores

T = TypeVar("T")
R = TypeVar("R")
WINDOW = 64  # items in work or done and not yet taken: 10 MB of photos at 224 px


def ordered(
    work: Callable[[T], R], items: Sequence[T], *, workers: int, title: str, unit: str = "photo"
) -> Iterator[R]:
    """Yield `work(item)` for each item, in order.

    Threads, not processes: Pillow, NumPy, ONNX Runtime and PyTorch work outside Python's lock.
    A slow item holds up no thread before `WINDOW` others, or two a thread, are done behind it.

    Args:
        work: is done in the threads.
        items: what it is done on.
        workers: see `cpu.cores`.
        title: of the progress bar, which is on standard error, on a terminal only.
        unit: an item's name there.

    """
    threads = cores(workers)
    pool = ThreadPoolExecutor(threads)
    try:
        with tqdm(total=len(items), desc=title, unit=unit, disable=None) as bar:
            for result in in_order(pool, work, items, window=max(WINDOW, 2 * threads)):
                yield result
                bar.update()
    finally:  # after an error, or when nobody takes the rest
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor, work: Callable[[T], R], items: Iterable[T], *, window: int
) -> Iterator[R]:
    """Yield `work(item)` for each item, in order; `window` of them are in work or not yet taken."""
    submitted = (pool.submit(work, item) for item in items)
    futures: deque[Future[R]] = deque(islice(submitted, window))
    while futures:
        yield futures.popleft().result()
        futures.extend(islice(submitted, 1))
