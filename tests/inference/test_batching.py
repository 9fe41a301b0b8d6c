import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from toys import colour_classifier

from meadow.inference import batching
from meadow.inference.batching import Batched
from meadow.inference.classifier import Classifier


class Held:
    """Stands in for a network on a GPU: it doubles, and its first run ends when it may."""

    def __init__(self, fails_at: int = 0) -> None:
        self.began, self.may = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.fails_at = fails_at

    def run(self, names: Sequence[str] | None, feed: Mapping[str, NDArray[Any]], /) -> Any:
        self.sizes.append(len(feed["pixels"]))
        self.began.set()
        assert self.may.wait(60)
        if len(self.sizes) == self.fails_at:
            raise ValueError("the GPU is gone")
        return [2 * feed["pixels"], -feed["pixels"]][: len(names or "ab")]


def gathered(
    session: Held, runs: Sequence[tuple[list[str] | None, list[int]]]
) -> list["Future[list[NDArray[Any]]]"]:
    """Start the first run, and the others while it is under way, each on a thread of its own."""
    batched = Batched(session)

    def wait_in_line(count: int) -> bool:
        return len(batched.waiting) == count

    pool = ThreadPoolExecutor(len(runs))
    futures = []
    for count, (names, values) in enumerate(runs):
        futures.append(pool.submit(batched.run, names, {"pixels": np.array(values)}))
        if count == 0:
            assert session.began.wait(60)
        else:
            until(partial(wait_in_line, count))
    session.may.set()
    pool.shutdown()
    return futures


def until(reached: Callable[[], bool]) -> None:
    """Wait for other threads."""
    ends = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_what_waits_is_one_batch_and_each_gets_its_own_rows() -> None:
    """The first run waits for nobody; those that came meanwhile are one."""
    session = Held()
    futures = gathered(session, [(None, [1]), (None, [2, 3]), (None, [4]), (None, [5])])

    assert session.sizes == [1, 4]
    assert [future.result()[0].tolist() for future in futures] == [[2], [4, 6], [8], [10]]
    assert [future.result()[1].tolist() for future in futures] == [[-1], [-2, -3], [-4], [-5]]


def test_a_batch_has_a_limit_and_one_kind_of_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is larger than the limit is done alone; others keep their turn."""
    monkeypatch.setattr(batching, "MOST", 3)
    session = Held()
    runs = [(None, [0]), (None, [1, 2]), (None, [3] * 5), (["a"], [4]), (None, [5])]
    futures = gathered(session, runs)

    assert session.sizes == [1, 3, 5, 1]
    assert [len(future.result()) for future in futures] == [2, 2, 2, 1, 2]
    assert futures[4].result()[0].tolist() == [10]


def test_a_batch_that_fails_fails_for_all_of_it_and_for_no_other() -> None:
    """Nobody waits for ever, and the next batch is computed."""
    session = Held(fails_at=2)
    futures = gathered(session, [(None, [1]), (None, [2]), (None, [3])])

    assert futures[0].result()[0].tolist() == [2]
    for future in futures[1:]:
        with pytest.raises(ValueError, match="the GPU is gone"):
            future.result()


def test_answers_in_batches_are_those_of_photos_alone(tmp_path: Path) -> None:
    """Within 1e-6, by the same classifier: ONNX Runtime on the CPU computes both."""
    alone = Classifier.load(colour_classifier(tmp_path, ["red", "grey", "green"]))
    sizes: list[int] = []

    class Counted:
        def run(self, names: Any, feed: Any, /) -> Any:
            sizes.append(len(feed["pixels"]))
            time.sleep(0.01)  # so that others gather
            return alone.session.run(names, feed)

    batched = Classifier(
        alone.classes, alone.preprocessing, alone.version, alone.about, Batched(Counted())
    )
    photos = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(batched.answer, photos))

    assert sum(sizes) == 64
    assert max(sizes) > 1
    for photo, answer in zip(photos, answers, strict=True):
        expected = alone.answer(photo)
        assert np.allclose(answer.probabilities, expected.probabilities, atol=1e-6)
        assert answer.distance == pytest.approx(expected.distance, abs=1e-6)
        assert answer.prediction_set.tolist() == expected.prediction_set.tolist()
