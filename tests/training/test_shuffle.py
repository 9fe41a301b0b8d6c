import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from meadow.training import shuffle
from meadow.training.shuffle import Sizes

PIXELS = np.arange(500, dtype=np.uint8).repeat(12).reshape(500, 2, 2, 3)


BLOCK = 16


def order(n: int, window: int, seed: int = 0) -> NDArray[np.int64]:
    return shuffle.order(np.random.default_rng(seed), n, Sizes(BLOCK, window))


@pytest.mark.parametrize(("n", "window"), [(500, 64), (33, 32), (500, 16), (100, 100)])
def test_each_photo_comes_once(n: int, window: int) -> None:
    assert sorted(order(n, window)) == list(range(n))


def test_a_set_of_one_window_is_a_plain_permutation() -> None:
    """So small sets have the order that they had before there were windows."""
    assert np.array_equal(order(64, 64), np.random.default_rng(0).permutation(64))


def test_a_window_is_of_few_blocks_from_all_over_the_set() -> None:
    """Few, so that reading is not random; all over, as photos of a class lie side by side."""
    rows = order(480, 64)
    blocks = [set(rows[i : i + 64] // BLOCK) for i in range(0, 448, 64)]

    assert {len(each) for each in blocks} == {64 // BLOCK}
    assert max(max(each) - min(each) for each in blocks) > 10
    assert not np.array_equal(rows[:64], np.sort(rows[:64]))
    assert not np.array_equal(rows, order(480, 64, seed=1))


def test_blocks_and_windows_are_of_so_many_bytes() -> None:
    """512 blocks in a window, whatever the photo's size; a photo at least."""
    assert Sizes.of(2**18) == Sizes(4, 2048)
    assert Sizes.of(3 * 288**2) == Sizes(4, 2156)
    assert Sizes.of(2**40) == Sizes(1, 1)


@pytest.mark.parametrize("readers", [1, 3])
def test_photos_are_read_in_that_order_by_any_number_of_readers(readers: int) -> None:
    """Each batch whole, also across two windows; an empty part is one."""
    rows = order(500, 64)
    batches = [slice(i, i + 20) for i in range(0, 500, 20)]
    for reader in range(readers):
        parts = [
            slice(batch.start + 20 * reader // readers, batch.start + 20 * (reader + 1) // readers)
            for batch in batches
        ] + [slice(500, 500)]
        photos = shuffle.read(PIXELS, rows, parts, Sizes(BLOCK, 64))

        assert [p[:, 0, 0, 0].tolist() for p in photos] == [
            PIXELS[rows[part], 0, 0, 0].tolist() for part in parts
        ]


class Disk:
    """Pixels that count what is read, and by which thread."""

    shape = PIXELS.shape

    def __init__(self) -> None:
        self.slices: list[slice] = []
        self.threads: set[str] = set()

    def __getitem__(self, rows: slice) -> NDArray[np.uint8]:
        self.slices.append(rows)
        self.threads.add(threading.current_thread().name)
        return PIXELS[rows]


def test_at_most_two_windows_are_read_ahead_in_slices() -> None:
    """The second while the first is used, by another thread."""
    disk, parts = Disk(), [slice(i, i + 16) for i in range(0, 496, 16)]
    photos = shuffle.read(disk, order(500, 64), parts, Sizes(BLOCK, 64))  # type: ignore[arg-type]
    for _ in range(4):
        next(photos)
    photos.close()  # type: ignore[attr-defined]

    assert threading.current_thread().name not in disk.threads
    assert len(disk.slices) == 2 * 64 // BLOCK
    assert all(rows.stop - rows.start <= BLOCK for rows in disk.slices)
