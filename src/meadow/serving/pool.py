"""Threads that photos wait for in line: a few classify, one explains.

A thread takes one photo from its bytes to the answer, so a bad photo spoils nobody else's, and the
answer has the same bits as evaluate's. Photos are not batched: on a CPU a batch is no faster
(docs/decisions.md). On a GPU it is: there more threads wait for a batch than decode photos.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

from meadow.inference.classifier import Answer, Classifier
from meadow.inference.signals import look
from meadow.serving.refusals import Refused

PHASES = ("queue", "decode", "network")  # one after the other
UNBOUNDED = nullcontext()
T = TypeVar("T")


class Pool(Generic[T]):
    """Works on photos, at most `threads` at once; `queue` more may wait.

    Args:
        work: makes a result of the bytes of a photo, on one of the threads; gets
            `time.perf_counter()` at which the photo came, too.
        threads: how many.
        queue: how many photos may wait.
        niceness: how far the threads give way to others; 19 at most.

    """

    def __init__(
        self,
        work: Callable[[bytes, float], T],
        *,
        threads: int,
        queue: int,
        niceness: int = 0,
    ) -> None:
        self.work = work
        self.queue = queue
        self.waiting = 0
        self.executor = ThreadPoolExecutor(threads, initializer=give_way, initargs=(niceness,))
        # One more than there are threads: the next is there when a thread is done.
        self.free = asyncio.Semaphore(threads + 1)

    def admit(self, photos: int = 1) -> None:
        """Make sure that so many photos may wait; where none does, a batch may that is larger.

        Raises:
            Refused: they may not.

        """
        if self.waiting + photos > self.queue and (photos == 1 or self.waiting):
            raise Refused("busy", f"{self.waiting} photos wait already")

    async def run(self, photo: bytes, *, admitted: bool = False) -> T:
        """Return the work's result; when cancelled while the photo waits, nothing is done.

        Raises:
            Refused: too many wait.
            Exception: what the work raises.

        """
        if not admitted:
            self.admit()
        came = time.perf_counter()
        self.waiting += 1
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self.executor, self.work, photo, came)
        running.add_done_callback(lambda _: self.free.release())
        return await running


@dataclass(frozen=True)
class Classified:
    """What became of one photo.

    Attributes:
        answer: the classifier's.
        came: `time.perf_counter()` then.
        queue, decode, network: seconds that it waited, was decoded and resized, was classified.
        look: see `signals.look`.

    """

    answer: Answer
    came: float
    queue: float
    decode: float
    network: float
    look: dict[str, float]


def classify(
    classifier: Classifier,
    photo: bytes,
    max_pixels: int,
    came: float,
    decoding: AbstractContextManager[object] = UNBOUNDED,
) -> Classified:
    """Classify the bytes of one photo file that came at `time.perf_counter()`.

    `decoding` is entered for as long as the whole photo is in memory.

    Raises:
        PhotoError: not a photo that Meadow takes.
        ArithmeticError: the network's output is not finite.

    """
    with decoding:
        taken = time.perf_counter()
        image, pixels = classifier.preprocessing.read(photo, max_pixels)
        width, height = image.size
        del image  # up to 200 MB
    decoded = time.perf_counter()
    answer = classifier.answer(pixels)
    done = time.perf_counter()
    return Classified(
        answer=answer,
        came=came,
        queue=taken - came,
        decode=decoded - taken,
        network=done - decoded,
        look=look(pixels, classifier.preprocessing, width, height),
    )


def give_way(niceness: int) -> None:
    """Have the thread that calls it yield to others, where the system can do that."""
    if niceness and sys.platform == "linux":  # elsewhere it is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
