import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toys import encoded, photo

from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline.image import PhotoError, Preprocessing
from meadow.serving.pool import Classified, Pool, classify
from meadow.serving.refusals import Refused

GOOD = encoded(photo(1))


class Slow:
    """A classifier that answers when it may."""

    preprocessing = Preprocessing(32, "squash")

    def __init__(self) -> None:
        self.may = threading.Event()
        self.done = 0

    def answer(self, _: np.ndarray) -> Answer:
        """Wait, then answer."""
        assert self.may.wait(10)
        self.done += 1
        return Answer(np.array([0.9, 0.1]), np.array([True, False]), 0.5, in_distribution=True)


@pytest.fixture
def slow() -> Iterator[Slow]:
    """Return one, which ends with the test."""
    classifier = Slow()
    yield classifier
    classifier.may.set()


def pool(classifier: Any, queue: int = 3) -> Pool[Classified]:
    return Pool(
        lambda photo, came: classify(classifier, photo, 10**6, came), threads=1, queue=queue
    )


def test_who_finds_the_line_full_is_told_at_once(slow: Slow) -> None:
    """Waiting for ever is what overload is made of; those in the line are answered."""

    async def check() -> None:
        it = pool(slow)
        accepted = [asyncio.ensure_future(it.run(GOOD)) for _ in range(2 + 3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Refused):
            await asyncio.wait_for(it.run(GOOD), 0.05)
        for photos in (1, 2):
            with pytest.raises(Refused):
                it.admit(photos)
        slow.may.set()
        await asyncio.gather(*accepted)
        it.admit(3)

    asyncio.run(check())
    assert slow.done == 5


def test_work_of_a_client_that_went_away_is_not_done(slow: Slow) -> None:
    """Only what a thread has in hand already; and its place in the line is free again."""

    async def check() -> None:
        it = pool(slow)
        works = [asyncio.ensure_future(it.run(GOOD)) for _ in range(5)]
        await asyncio.sleep(0.05)
        for work in works:
            work.cancel()
        await asyncio.sleep(0.05)
        it.admit(3)
        slow.may.set()
        await it.run(GOOD)

    asyncio.run(check())
    assert slow.done == 2


def test_a_bad_photo_spoils_no_other(slow: Slow) -> None:
    """Each is decoded for itself."""
    slow.may.set()

    async def check() -> list[object]:
        it = pool(slow, 10)
        photos = [GOOD, GOOD[:200], GOOD, b"", encoded(photo(1).resize((2000, 1000)), "PNG")]
        return await asyncio.gather(*map(it.run, photos), return_exceptions=True)

    kinds = [getattr(result, "reason", "answer") for result in asyncio.run(check())]
    assert kinds == ["answer", "damaged", "answer", "format", "too_large"]


@pytest.mark.skipif(sys.platform != "linux", reason="a thread has no niceness of its own")
@pytest.mark.parametrize("niceness", [0, 19])
def test_its_threads_give_way_and_no_others(niceness: int) -> None:
    """What works in the background takes what CPU is left."""

    def measure(*_: object) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    here = measure()
    it = Pool(measure, threads=1, queue=1, niceness=niceness)

    assert asyncio.run(it.run(b"")) == (niceness or here)
    assert measure() == here


def test_the_failure_is_a_photo_error(slow: Slow) -> None:
    """It comes out of the pool as it is."""
    with pytest.raises(PhotoError):
        asyncio.run(pool(slow).run(b"hello"))


@pytest.mark.parametrize(
    "output", [[[float("nan"), 1.0]], [[0.5, 0.3, 0.2]], [[0.5, 0.5], [0.5, 0.5]]]
)
def test_an_output_that_is_none_is_never_a_label(output: list[list[float]]) -> None:
    """Not a number, or of another shape: an error instead of the first class."""

    class Session:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.array(output, np.float32), np.zeros(len(output), np.float32)]

    classifier = Classifier(
        ["a", "b"], Preprocessing(32, "squash"), "0", {}, Session()
    )  # fmt: skip
    with pytest.raises(ArithmeticError):
        classifier.predict(GOOD)
