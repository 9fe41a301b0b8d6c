"""The engine of the service: photos wait in line, a few threads decode and classify them.

A thread takes one photo from its bytes to the answer, so a bad photo spoils nobody else's, and the
answer has the same bits as evaluate's. Photos are not batched: on a CPU a batch is no faster
(docs/decisions.md).
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline.cpu import cores


class Busy(Exception):  # noqa: N818  # it is an answer, not a fault
    """The line is full."""


@dataclass(frozen=True)
class Work:
    """What became of one photo.

    Attributes:
        answer: the classifier's.
        queue, decode, network: seconds that it waited, was decoded and resized, was classified.
        brightness, contrast: mean and standard deviation of what the network saw, 0 to 255.

    """

    answer: Answer
    queue: float
    decode: float
    network: float
    brightness: float
    contrast: float


class Engine:
    """Answers photos, at most `threads` at once; `queue` more may wait."""

    def __init__(
        self, classifier: Classifier, *, threads: int, queue: int, max_pixels: int
    ) -> None:
        threads = cores(threads)
        self.classifier = classifier
        self.queue = queue
        self.max_pixels = max_pixels
        self.waiting = 0
        self.pool = ThreadPoolExecutor(threads, "photo")
        # One more than there are threads: the next is there when a thread is done.
        self.free = asyncio.Semaphore(threads + 1)

    def warm_up(self) -> None:
        """Classify a blank picture in each thread; the first runs of a session are slow.

        Raises:
            ArithmeticError: the network's output is not finite.

        """
        size = self.classifier.preprocessing.size
        blank = np.zeros((size, size, 3), np.uint8)
        for _ in range(2):
            self.classifier.answer(blank)

    def admit(self, photos: int = 1) -> None:
        """Make sure that so many photos may wait.

        Raises:
            Busy: they may not.

        """
        if self.waiting + photos > self.queue:
            raise Busy(f"{self.waiting} photos wait already")

    async def classify(self, photo: bytes) -> Work:
        """Classify the bytes of one photo file; when cancelled while it waits, nothing is done.

        Raises:
            Busy: too many wait.
            PhotoError: not a photo that Meadow takes.
            ArithmeticError: the network's output is not finite.

        """
        self.admit()
        began = time.perf_counter()
        self.waiting += 1
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1
        running = asyncio.get_running_loop().run_in_executor(self.pool, self._work, photo, began)
        running.add_done_callback(lambda _: self.free.release())
        return await running

    def _work(self, photo: bytes, began: float) -> Work:
        taken = time.perf_counter()
        pixels = self.classifier.preprocessing(photo, self.max_pixels)
        decoded = time.perf_counter()
        answer = self.classifier.answer(pixels)
        done = time.perf_counter()
        seen = pixels[::8, ::8]  # enough for a mean
        return Work(
            answer=answer,
            queue=taken - began,
            decode=decoded - taken,
            network=done - decoded,
            brightness=round(float(seen.mean()), 1),
            contrast=round(float(seen.std()), 1),
        )
