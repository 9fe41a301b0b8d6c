from collections.abc import Generator
from threading import Event

import pytest

from meadow.pipeline.parallel import WINDOW, Machines, ordered


def test_results_come_in_the_order_of_the_items() -> None:
    """Whichever thread was faster."""
    assert list(ordered(lambda i: i * i, range(300), Machines(5), title="")) == [
        i * i for i in range(300)
    ]


def test_no_more_than_the_window_is_begun_ahead_and_the_window_slides() -> None:
    """Memory is bounded, and no batch waits for its slowest item."""
    begun = [Event() for _ in range(3 * WINDOW)]
    results = ordered(lambda i: begun[i].set(), range(3 * WINDOW), Machines(2), title="")

    for taken in range(1, 10):
        next(results)
        assert begun[WINDOW + taken - 2].wait(30)
        assert not begun[WINDOW + taken - 1].is_set()
    assert isinstance(results, Generator)
    results.close()


def test_an_error_ends_the_work() -> None:
    """It comes out in its item's place, and what has not begun is not done."""
    done = []

    def work(i: int) -> int:
        if i == 3:
            raise ValueError("3")
        done.append(i)
        return i

    results = ordered(work, range(10_000), Machines(1), title="")

    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="3"):
        next(results)
    assert len(done) <= WINDOW + 3
