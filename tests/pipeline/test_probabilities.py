import numpy as np
import pytest

from meadow.pipeline import probabilities
from meadow.pipeline.probabilities import (
    KEPT,
    PAIR,
    blocks,
    collected,
    likeliest,
    of_targets,
    room,
    store,
    stored,
)

CLASSES = 3 * KEPT


def draw(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Return log-probabilities of very unequal classes, (n, CLASSES), and labels at random."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.normal(size=(n, CLASSES))
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_p.astype(np.float32), rng.integers(0, CLASSES, n)


def test_the_likeliest_classes_and_the_label_are_kept_as_they_are() -> None:
    """Labels are mostly not among the likeliest here; the others share the rest evenly."""
    log_p, targets = draw()
    p = np.exp(log_p.astype(np.float64))
    kept = stored(store(log_p, targets, np.empty(0, PAIR)), CLASSES)

    assert likeliest(kept)[0].tolist() == p.argmax(axis=1).tolist()
    assert likeliest(kept)[1] == pytest.approx(p.max(axis=1), abs=1e-7)
    assert of_targets(kept, targets) == pytest.approx(p[np.arange(40), targets], abs=1e-7)
    assert kept[:].sum(axis=1) == pytest.approx(1)
    first = np.argsort(-p, axis=1)[:, : KEPT - 1]
    assert np.take_along_axis(kept[:], first, axis=1) == pytest.approx(
        np.take_along_axis(p, first, axis=1), abs=1e-7
    )


@pytest.mark.parametrize("kind", [np.float32, PAIR])
def test_blocks_give_every_photo_once(monkeypatch: pytest.MonkeyPatch, kind: np.dtype) -> None:
    """In their order, however many are taken at once."""
    log_p, targets = draw()
    p = stored(store(log_p, targets, like=np.empty(0, kind)), CLASSES)
    monkeypatch.setattr(probabilities, "AT_ONCE", 7 * CLASSES)

    assert np.array_equal(np.concatenate([block for _, block in blocks(p)]), p[:])
    assert [part.stop - part.start for part, _ in blocks(p)] == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("most", [0, 10**6])
def test_answers_that_come_one_by_one_are_kept_likewise(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """To the bit where they are few; a probability of 0 is one that is as good as 0."""
    log_p, targets = draw()
    p = np.exp(log_p.astype(np.float64))
    p[0], p[0, 3] = 0, 1
    monkeypatch.setattr(probabilities, "WHOLE", most)
    kept = collected(iter(p), targets, CLASSES)

    assert np.array_equal(likeliest(kept)[0], p.argmax(axis=1))
    assert of_targets(kept, targets) == pytest.approx(p[np.arange(40), targets], abs=1e-7)
    assert np.array_equal(kept[:], p) == (most > 0)


def test_few_photos_are_kept_whole() -> None:
    """To the bit."""
    log_p, targets = draw()

    assert store(log_p, targets, like=room(40, CLASSES)) is log_p
    assert np.array_equal(stored(log_p, CLASSES)[:], np.exp(log_p, dtype=np.float64))


def test_of_many_the_likeliest_are_kept() -> None:
    """Unless they are so few that all take hardly more."""
    assert room(10**6, 2 * KEPT).dtype == np.float32
    assert room(10, 10**5).dtype == np.float32
    many = room(10**6, 2 * KEPT + 1)
    assert (many.dtype, many.shape) == (PAIR, (10**6, KEPT))
