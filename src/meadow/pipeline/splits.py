"""Which photos are for training, for validation, and for the test that nothing else touches."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from meadow.pipeline.hashing import hash_fraction

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def assign(
    labels: Sequence[str],
    groups: Sequence[str],
    *,
    val: float,
    test: float,
    seed: int,
) -> list[Split]:
    """Assign each photo to a split by the content of its group.

    The position of a group alone decides, so that adding photos never moves old ones. (It cannot
    be otherwise without a memory; the price is that the shares are met as by coin tosses:
    200 photos at 0.2 give 40 +- 6.) The exception: where a split would get no photo of a class,
    the class's group nearest to that split's range is moved there, as long as another stays
    behind; in sets that small a new photo may take its place.

    Args:
        labels: class of each photo.
        groups: content key of each photo's group of near-duplicates (its smallest SHA-256).
        val: share of the photos for validation.
        test: share of the photos for the test.
        seed: another seed draws another split.

    Returns:
        The split of each photo.

    """
    split = {key: _split(hash_fraction(key, seed), val, test) for key in groups}
    ranges = {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0)}
    for label in sorted(set(labels)):
        keys = {key for key, its_label in zip(groups, labels, strict=True) if its_label == label}
        for wanted in SPLITS:
            sizes = Counter(split[key] for key in keys)
            spare = [key for key in keys if sizes[split[key]] > 1]
            if not sizes[wanted] and spare:
                low, high = ranges[wanted]
                place = {key: hash_fraction(key, seed) for key in spare}
                nearest = min(spare, key=lambda k: (max(low - place[k], place[k] - high), k))
                split[nearest] = wanted
    return [split[key] for key in groups]


def _split(place: float, val: float, test: float) -> Split:
    if place < test:
        return "test"
    return "val" if place < test + val else "train"
