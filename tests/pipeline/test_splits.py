from collections import Counter

import pytest

from meadow.pipeline.splits import assign


def keys(n: int, start: int = 0) -> list[str]:
    return [f"photo {i}" for i in range(start, start + n)]


def test_the_shares_are_met_as_by_coin_tosses() -> None:
    """10,000 photos: within four standard deviations of what was asked."""
    counts = Counter(assign(["a"] * 10_000, keys(10_000), val=0.15, test=0.2, seed=1))

    assert counts["test"] == pytest.approx(2000, abs=160)
    assert counts["val"] == pytest.approx(1500, abs=143)


def test_adding_photos_never_moves_an_old_one() -> None:
    """Otherwise a photo that was trained on could become a test photo."""
    old, new = keys(300), keys(300, start=1000)

    before = assign(["a"] * 300, old, val=0.15, test=0.2, seed=7)
    after = assign(["a"] * 600, [*new, *old], val=0.15, test=0.2, seed=7)

    assert before == after[300:]


def test_a_group_is_never_parted() -> None:
    """Near-duplicates on both sides of a split would be a leak."""
    groups = [key for key in keys(100) for _ in range(3)]

    split = assign(["a"] * 300, groups, val=0.3, test=0.3, seed=0)

    assert all(len(set(split[i : i + 3])) == 1 for i in range(0, 300, 3))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("n", [3, 4, 7])
def test_every_split_gets_a_photo_of_every_class(n: int, seed: int) -> None:
    """Also where a class has as few photos as there are splits."""
    labels = ["few"] * n + ["many"] * 200

    split = assign(labels, keys(n + 200), val=0.15, test=0.2, seed=seed)

    for label in ("few", "many"):
        assert {s for s, its_label in zip(split, labels, strict=True) if its_label == label} == {
            "train",
            "val",
            "test",
        }


@pytest.mark.parametrize("seed", range(20))
def test_a_burst_is_trained_on(seed: int) -> None:
    """A group of more than half of a class, in test, would leave next to nothing to learn from."""
    groups = [*["burst"] * 20, *keys(3)]

    split = assign(["a"] * 23, groups, val=0.15, test=0.7, seed=seed)

    assert split[0] == "train"
    assert set(split) == {"train", "val", "test"}


def test_another_seed_draws_another_split() -> None:
    """And the same seed the same."""
    one, other = (assign(["a"] * 100, keys(100), val=0.2, test=0.2, seed=s) for s in (1, 2))

    assert one != other
    assert one == assign(["a"] * 100, keys(100), val=0.2, test=0.2, seed=1)
