"""Which photos are for training, for validation, and for the test that nothing else touches."""

from collections import Counter, defaultdict
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
    200 photos at 0.2 give 40 +- 6.) Two exceptions, in which a new photo may move old ones: a group
    that holds more than half of a class, such as a burst, is trained on; and where a split would
    get no photo of a class, the class's other group nearest to that split's range is moved there,
    as long as one stays behind. So a class of three groups and more is in every split.

    Args:
        labels: class of each photo.
        groups: content key of each photo's group of near-duplicates (its smallest SHA-256); a group
            is of one class.
        val: share of the photos for validation.
        test: share of the photos for the test.
        seed: another seed draws another split.

    Returns:
        The split of each photo.

    """
    split = {key: _split(hash_fraction(key, seed), val, test) for key in groups}
    ranges = {"test": (0.0, test), "val": (test, test + val), "train": (test + val, 1.0)}
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for key, label in zip(groups, labels, strict=True):
        members[label][key] += 1
    for label in sorted(members):
        keys = members[label]
        largest = {key for key, count in keys.items() if 2 * count > keys.total() and len(keys) > 1}
        split.update(dict.fromkeys(largest, "train"))
        for wanted in SPLITS:
            sizes = Counter(split[key] for key in keys)
            spare = [key for key in keys if sizes[split[key]] > 1 and key not in largest]
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
