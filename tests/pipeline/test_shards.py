"""Pixels in files of bounded size."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.pipeline import shards
from meadow.pipeline.shards import Pixels, Spool

PHOTO = 4 * 4 * 3


def photos(numbers: Sequence[int]) -> NDArray[np.uint8]:
    """Return photos of 4 x 4 px that show their numbers."""
    return np.repeat(np.array(numbers, np.uint16).view(np.uint8), PHOTO // 2).reshape(-1, 4, 4, 3)


def pack(folder: Path, numbers: Sequence[int]) -> Pixels:
    """Pack these photos."""
    with Spool(folder, 4) as spool:
        for photo in photos(numbers):
            spool.append(photo)
        hashes = [sha256(str(number).encode()).hexdigest() for number in numbers]
        spool.pack(range(len(numbers)), hashes, "train")
    return Pixels(folder, "train")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 photos a shard."""
    monkeypatch.setattr(shards, "MOST", 20 * PHOTO + 1)


@pytest.mark.parametrize(
    "rows",
    [0, 299, -1, slice(0, 300), slice(5, 90), slice(7, 7), slice(-3, None), slice(0, 50, 3),
     [3], [250, 3, 4, 5, 3], np.arange(300)[::-1], np.array([], np.int64)],
    ids=str,
)  # fmt: skip
def test_what_is_read_is_what_an_array_would_give(
    rows: int | slice | list[int] | NDArray[np.int64], tmp_path: Path
) -> None:
    """Wherever a shard ends."""
    pixels, array = pack(tmp_path / "x", range(300)), photos(range(300))
    assert len(list((tmp_path / "x").iterdir())) > 300 / 20
    assert pixels.shape == array.shape
    assert np.array_equal(pixels[rows], array[rows])


def test_it_ends_where_an_array_does(tmp_path: Path) -> None:
    """Another photo in the place of one that is not there would never be noticed."""
    pixels = pack(tmp_path / "x", range(30))
    assert np.array_equal(np.stack(list(pixels)), photos(range(30)))
    for rows in (30, -31, [30], [-1]):
        with pytest.raises(IndexError):
            pixels[rows]


def test_a_shard_is_a_file_of_numpy_of_bounded_size(tmp_path: Path) -> None:
    """Whatever reads .npy reads it, and no file grows with the set."""
    pack(tmp_path / "x", range(300))
    arrays = [np.load(file) for file in sorted((tmp_path / "x").iterdir())]
    assert max(map(len, arrays)) <= 20
    assert np.array_equal(np.concatenate(arrays), photos(range(300)))


@pytest.mark.parametrize("place", [0, 150, 299])
def test_one_more_photo_rewrites_few_shards(place: int, tmp_path: Path) -> None:
    """The others are in the DVC cache and on the remote already."""
    numbers = [*range(300)]
    pack(tmp_path / "old", numbers)
    pack(tmp_path / "new", [*numbers[:place], 1000, *numbers[place:]])
    old, new = (
        {file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("old", "new")
    )
    assert 1 <= len(new - old) <= 4 < len(new) / 5


def test_a_shard_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    """Not a photo of noise."""
    pixels = pack(tmp_path / "x", range(30))
    for file in (tmp_path / "x").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(MeadowError, match=r"damaged\. Run `dvc repro prepare`"):
        pixels[:]
    with pytest.raises(MeadowError, match=r"damaged\. Run `dvc repro prepare`"):
        Pixels(tmp_path / "x", "train")
    with pytest.raises(MeadowError, match=r"damaged\. Run `dvc repro prepare`"):
        Pixels(tmp_path / "x", "val")
