import numpy as np
import pytest

from meadow.drift.tally import BLOCKS, SAMPLE, Tally
from meadow.inference.reference import Reference
from meadow.inference.signals import SIGNALS


def reference(m: int = 100) -> Reference:
    random = np.random.default_rng(0)
    signals = {name: random.normal(size=m).round(1) for name in SIGNALS}
    return Reference(signals, np.zeros(m, np.int64), np.zeros(m, np.int64))


def filled(answers: int) -> tuple[Tally, np.ndarray]:
    """Count random answers, as many at once as there is room for."""
    random = np.random.default_rng(1)
    tally, values = Tally(reference(), 3), random.normal(size=(answers, len(SIGNALS))).round(1)
    at = 0
    while at < answers:
        end = min(at + tally.room, answers)
        times = [f"{i:09}" for i in range(at, end)]
        tally.add(times, values[at:end], np.arange(at, end) % 3)
        at = end
    return tally, values


@pytest.mark.parametrize("answers", [1, 16, 17, 1024, 1025, 50_001])
def test_nothing_is_lost_in_blocks_of_time(answers: int) -> None:
    """Of one answer as of many, in bounded memory; each block knows when it began."""
    tally, values = filled(answers)
    sizes = tally.counts["predicted"].sum(axis=1)[: len(tally.times)]

    assert tally.total == answers == sizes.sum()
    assert len(tally.times) <= BLOCKS
    assert [int(time) for time in tally.times] == [0, *np.cumsum(sizes)[:-1]]
    assert len(set(sizes[:-1])) <= 1
    for name, column in zip(SIGNALS, values.T, strict=True):
        assert (tally.counts[name].sum(axis=0) == tally.cells(name, column)).all()


def test_the_sample_is_drawn_from_all_answers() -> None:
    """Late ones are as likely as early ones, and few are taken whole."""
    few, values = filled(SAMPLE // 2)
    assert sorted(few.sample[:, 0]) == sorted(values[:, 0])
    tally, at = Tally(reference(), 3), 0
    while at < 40_000:
        numbers = np.arange(at, at + tally.room, dtype=float)
        at += len(numbers)
        rows = np.repeat(numbers[:, None], len(SIGNALS), axis=1)
        tally.add([""] * len(numbers), rows, np.zeros(len(numbers), np.int64))

    assert len(tally.sample) == SAMPLE
    assert tally.sample[:, 0].mean() == pytest.approx(at / 2, rel=0.1)
