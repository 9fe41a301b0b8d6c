"""`parallel.ordered` by the workers of a Dask scheduler; `distributed` is an extra.

Batches of items go there as tasks, a few ahead of what is taken. The function goes once, as the
result of a task that all others need: Dask hands it from worker to worker, and makes it again where
the last worker that had it has died.
"""

import hashlib
import logging
import pickle
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from time import monotonic
from typing import Any, TypeVar
from uuid import uuid4

import dask
import numpy as np
from distributed import CancelledError, Client, Future, KilledWorker, Security, get_worker
from numpy.typing import NDArray

from meadow.errors import MeadowError

T = TypeVar("T")
R = TypeVar("R")
BATCH = 32  # items of a task, which costs about 3 ms beside its work
AHEAD = 2  # batches for each thread of the workers, in work or not yet taken; and one more
CONNECT = 60.0  # seconds, for a scheduler and a worker to be there, at first and after a loss
PATIENCE = 600.0  # seconds without a result; Dask gives a stopped worker up after 300
PACKAGES = ("distributed", "numpy", "onnxruntime", "pi-heif", "pillow")
SOURCE = Path(__file__).parents[1]
_Packed = NDArray[np.uint8]  # a pickle: Dask hands arrays on without copies of them, not bytes
SET = {"distributed.admin.large-graph-warning-threshold": "10 GB"}  # networks are large


class _LostError(Exception):
    """The scheduler is gone, and with it all that it knew."""


def ordered(work: Callable[[T], R], items: Iterable[T], scheduler: str) -> Iterator[R]:
    """Yield `work(item)` for each item, in order.

    Batches that were lost with a worker are done again. So are those in work when the scheduler
    goes, as soon as one is at its address again.

    Args:
        work: see `parallel.ordered`.
        items: what it is done on.
        scheduler: tcp://HOST:PORT, or tls://HOST:PORT with Dask's settings for certificates.

    Raises:
        MeadowError: no scheduler or no worker is there, or none comes back; a worker runs another
            Meadow; a batch has ended several workers; or none is done in `PATIENCE`.

    """
    payload, left = pickle.dumps(work), iter(items)
    batches = enumerate(iter(lambda: list(islice(left, BATCH)), []))
    begun: dict[int, _Packed] = {}
    done: dict[int, _Packed | BaseException] = {}
    turn, turn_of_loss = 0, -1
    while True:
        workers = _Workers(scheduler, payload)
        try:
            for number, pickled in begun.items():
                workers.begin(number, pickled)
            while True:
                room = max(0, workers.window() - len(begun) - len(done))
                for number, batch in islice(batches, room):
                    begun[number] = _packed(batch)
                    workers.begin(number, begun[number])
                if not begun:
                    return
                number, done[number] = workers.finished()
                del begun[number]
                while turn in done:
                    result, turn = done.pop(turn), turn + 1
                    if isinstance(result, BaseException):
                        raise result
                    yield from pickle.loads(result.data)  # noqa: S301  # from one's own machines
        except _LostError:
            if turn == turn_of_loss:
                raise MeadowError(
                    f"the Dask scheduler {scheduler} is lost again and again; its log says why."
                    " Then run this again."
                ) from None
            turn_of_loss = turn
        finally:
            workers.close()


class _Workers:
    """A connection to a scheduler, which lasts as long as this scheduler."""

    def __init__(self, scheduler: str, payload: bytes) -> None:
        for name in ("batched", "client"):  # tracebacks of losses, which are handled here
            logging.getLogger(f"distributed.{name}").setLevel(logging.CRITICAL)
        tls = Security().get_connection_args("client")["ssl_context"]
        if scheduler.startswith("tls:") and not tls:
            raise MeadowError(
                f"runtime.scheduler: {scheduler} needs certificates. Set"
                " DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ..._TLS__CLIENT__CERT and"
                " ..._TLS__CLIENT__KEY to their files, then run this again."
            )
        try:
            self._client = Client(scheduler, timeout=CONNECT, set_as_default=False)
        except Exception as error:  # of several types
            raise MeadowError(
                f"runtime.scheduler: no Dask scheduler answers at {scheduler} ({error}). Start one"
                " with `dask scheduler`, or set it to '' to work with the threads of this machine."
                " Then run this again: features that are computed are kept."
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=CONNECT)
        except TimeoutError:
            self.close()
            raise MeadowError(
                f"runtime.scheduler: {scheduler} has no worker. Start one on each machine with"
                f" `dask worker {scheduler} --nthreads CORES`, then run this again."
            ) from None
        self._scheduler, self._window, self._asked = scheduler, 0, 0.0
        self._futures: dict[int, Future] = {}
        self._finished: SimpleQueue[tuple[int, Future]] = SimpleQueue()
        with dask.config.set(SET):
            key = f"meadow-work-{hashlib.sha256(payload).hexdigest()}"
            self._work = self._client.submit(Work, payload, identity(), key=key)

    def window(self) -> int:
        """Return how many batches may be in work, or done and not taken."""
        if monotonic() - self._asked > 1:
            try:
                threads = self._client.sync(self._client.scheduler.ncores, callback_timeout=CONNECT)
            except OSError:
                raise _LostError from None
            self._window, self._asked = 1 + AHEAD * sum(threads.values()), monotonic()
        return self._window

    def begin(self, number: int, batch: _Packed) -> None:
        """Send a batch of items."""
        future = self._client.submit(call, self._work, batch, key=f"meadow-batch-{uuid4()}")
        self._futures[number] = future
        future.add_done_callback(lambda future: self._finished.put((number, future)))

    def finished(self) -> tuple[int, _Packed | BaseException]:
        """Wait for a batch that is done; return its number, and its pickled results or its error.

        Results are fetched at once: those that wait on a worker would be lost with it.
        """
        number, future = self._next()
        del self._futures[number]
        if future.status == "error":
            return number, self._explained(future.exception(), number)
        try:
            return number, future.result(timeout=PATIENCE)
        except TimeoutError:
            raise self._stuck() from None
        except (CancelledError, OSError):
            raise _LostError from None

    def _next(self) -> tuple[int, Future]:
        deadline = monotonic() + PATIENCE
        while True:
            try:
                return self._finished.get(timeout=1)
            except Empty:
                if self._client.status != "running":
                    raise _LostError from None
                if monotonic() > deadline:
                    raise self._stuck() from None

    def _stuck(self) -> MeadowError:
        return MeadowError(
            f"the workers of {self._scheduler} have finished nothing for {PATIENCE:.0f} s. Their"
            " logs say whether they are stopped, paused for want of memory, or gone. Start others,"
            " then run this again."
        )

    def _explained(self, error: BaseException, number: int) -> BaseException:
        """Return a task's error in words that help, where Dask's do not."""
        if isinstance(error, KilledWorker):
            return MeadowError(
                f"items {number * BATCH + 1} to {(number + 1) * BATCH}, or some near them, have"
                f" ended several Dask workers, the last one at {error.last_worker.address}: most"
                " often for want of memory. Give the workers more, or fewer threads, then run this"
                " again."
            )
        if isinstance(error, ImportError | AttributeError) or "deserializ" in str(error):
            return MeadowError(
                f"{self._scheduler} or one of its workers cannot load Meadow:"
                f" {str(error).partition('. ')[0]}. Start them in an environment that has this"
                " checkout and its packages, then run this again."
            )
        return error

    def close(self) -> None:
        """End the connection; the scheduler forgets what was asked."""
        with suppress(Exception):  # it may be gone
            self._client.close(timeout=10)


class Work:
    """A function on its way to the workers, opened on each when it is first called."""

    def __init__(self, payload: bytes, wanted: dict[str, str]) -> None:
        self.payload, self.wanted = payload, wanted
        self._function: Callable[[Any], Any] | None = None
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel closed."""
        return Work, (self.payload, self.wanted)

    def __sizeof__(self) -> int:
        """Tell Dask what a worker holds."""
        return len(self.payload)

    def function(self) -> Callable[[Any], Any]:
        """Return the function.

        Raises:
            MeadowError: this worker would compute it with other code.

        """
        with self._lock:
            if not self._function:
                here = identity()
                differences = [
                    f"{what} {here.get(what)} instead of {value}"
                    for what, value in self.wanted.items()
                    if here.get(what) != value
                ]
                if differences:
                    raise MeadowError(
                        f"the Dask worker {get_worker().address} ({platform.node()}) would not"
                        f" compute the same: it has {', '.join(differences)}. Start it again from"
                        " this checkout, with its packages, then run this again."
                    )
                self._function = pickle.loads(self.payload)  # noqa: S301  # from the client
            return self._function


def call(work: Work, batch: _Packed) -> _Packed:
    """Do a batch; runs on a worker."""
    function = work.function()
    return _packed([function(item) for item in pickle.loads(batch.data)])  # noqa: S301  # likewise


def _packed(values: list[Any]) -> _Packed:
    return np.frombuffer(pickle.dumps(values, protocol=5), np.uint8)


@cache
def identity() -> dict[str, str]:
    """Return what must be equal for equal results: Meadow's code, Python, and packages."""
    code = hashlib.sha256()
    for path in sorted(SOURCE.rglob("*.py")):
        data = path.read_bytes()
        code.update(f"{path.relative_to(SOURCE).as_posix()} {len(data)} ".encode() + data)
    return {
        "Meadow's code": code.hexdigest()[:12],
        "Python": platform.python_version(),
        "processor": platform.machine(),
        **{package: version(package) for package in PACKAGES},
    }
