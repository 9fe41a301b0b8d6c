"""Work on many items at once, in order, in bounded memory, with a progress bar."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from meadow.errors import MeadowError
from meadow.pipeline.cpu import cores
from meadow.pipeline.places import Place

T = TypeVar("T")
R = TypeVar("R")
WINDOW = 64  # items in work or done and not yet taken: 10 MB of photos at 224 px
WAITING = 4  # threads a core where photos come from a bucket


@dataclass(frozen=True)
class Machines:
    """Where work is done.

    Attributes:
        workers: threads of this process; see `cpu.cores`.
        scheduler: address of a Dask scheduler, whose workers do it instead; "" for none.

    """

    workers: int = 0
    scheduler: str = ""

    def path(self, path: Place) -> Place:
        """Return a path as these machines find it: others share the folder, and work elsewhere."""
        return path.absolute() if self.scheduler and isinstance(path, Path) else path

    def reading(self, where: Place) -> "Machines":
        """Return these machines for work that reads each photo there: threads wait for a server."""
        if isinstance(where, Path):
            return self
        return replace(self, workers=WAITING * cores(self.workers))


HERE = Machines()


def ordered(
    work: Callable[[T], R],
    items: Iterable[T],
    machines: Machines = HERE,
    *,
    title: str,
    unit: str = "photo",
    total: int | None = None,
) -> Iterator[R]:
    """Yield `work(item)` for each item, in order.

    Threads, not processes: Pillow, NumPy, ONNX Runtime and PyTorch work outside Python's lock.
    A slow item holds up no thread before `WINDOW` others, or two a thread, are done behind it.

    Args:
        work: is done in the threads; to be done by a scheduler's workers, it can be pickled, as the
            items and the results can. It is sent to each worker once.
        items: what it is done on; taken as they are needed.
        machines: where it is done. The results do not depend on it.
        title: of the progress bar, which is on standard error, on a terminal only.
        unit: an item's name there.
        total: number of items, where `items` does not know it.

    Raises:
        MeadowError: there is no such scheduler; see `dask_map.ordered`.

    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with tqdm(total=total, desc=title, unit=unit, disable=None) as bar:
        results: Iterator[R]
        if machines.scheduler:
            try:
                from meadow.pipeline import dask_map
            except ModuleNotFoundError as error:
                raise MeadowError(
                    f"runtime.scheduler needs the package {error.name!r}. Run `pip install -r"
                    " requirements/dask.txt -c requirements/constraints.txt`."
                ) from None
            results = dask_map.ordered(work, items, machines.scheduler)
        else:
            results = _by_threads(work, items, cores(machines.workers))
        for result in results:
            yield result
            bar.update()


def _by_threads(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    pool = ThreadPoolExecutor(threads)
    try:
        yield from in_order(pool, work, items, window=max(WINDOW, 2 * threads))
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
