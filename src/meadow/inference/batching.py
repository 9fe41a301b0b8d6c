"""Runs of a network that wait for one another, done as one: on a GPU a batch is little dearer.

Nobody waits for a batch to fill up. While one is computed, runs gather; the next one takes them.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

MOST = 32  # photos in a batch, unless one run alone has more
Outputs = list[NDArray[Any]]


class Runs(Protocol):
    """What runs a network, as ONNX Runtime's session does."""

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]], /) -> Any:
        """Return the outputs of these names, each (n, ...), for inputs (n, ...)."""


@dataclass(eq=False)
class _Run:
    names: Sequence[str] | None
    feed: Mapping[str, NDArray[Any]]
    result: "Future[Outputs]" = field(default_factory=Future)

    @property
    def size(self) -> int:
        return len(next(iter(self.feed.values())))


class Batched:
    """A session that does the runs of several threads as one; each gets its own rows.

    The thread that finds the session free computes what has gathered, for the others too: there is
    no thread beside those that ask.

    Args:
        session: is run by one thread at a time.

    """

    def __init__(self, session: Runs) -> None:
        self.session = session
        self.free = threading.Lock()
        self.waiting: list[_Run] = []

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]], /) -> Outputs:
        """Return the outputs of this run alone.

        Raises:
            Exception: what the session raises, for all runs of the batch.

        """
        mine = _Run(names, feed)
        self.waiting.append(mine)
        while not mine.result.done():
            with self.free:
                if not mine.result.done():
                    self._compute(self._next())
        return mine.result.result()

    def _next(self) -> list[_Run]:
        """Take the runs that came first and ask for the same outputs, `MOST` photos or one run."""
        first, *others = self.waiting.copy()
        batch, size = [first], first.size
        for run in others:
            if run.names == first.names and size + run.size <= MOST:
                batch.append(run)
                size += run.size
        for run in batch:
            self.waiting.remove(run)
        return batch

    def _compute(self, batch: list[_Run]) -> None:
        try:
            feed = {
                name: np.concatenate([run.feed[name] for run in batch]) for name in batch[0].feed
            }
            outputs = self.session.run(batch[0].names, feed)
        except Exception as error:  # whose it is, all of them have to know
            for run in batch:
                run.result.set_exception(error)
            return
        ends = np.cumsum([run.size for run in batch])[:-1]
        rows = [np.split(output, ends) for output in outputs]
        for i, run in enumerate(batch):
            run.result.set_result([parts[i] for parts in rows])
