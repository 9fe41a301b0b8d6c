"""A survey of the whole set: every photo inspected, copies and near-duplicates grouped.

Prepare packs what it gives, and the data report shows it.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from meadow import params
from meadow.curation import discovery, inspection, near_duplicates, overrides
from meadow.curation.discovery import PhotoFile
from meadow.curation.inspection import BadPhoto, GoodPhoto
from meadow.errors import MeadowError
from meadow.pipeline import parallel, places, splits
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.places import Place

LISTED = 20  # photos, or groups, named in the terminal; left_out.csv has them all


@dataclass(frozen=True)
class Survey:
    """What is in a set of photos.

    Attributes:
        where: the set's folder or bucket.
        files: all of them by path, labelled by their folders.
        dropped: those that data/overrides.csv drops.
        relabelled: how many it gives another label.
        photos: those that can be decoded, byte copies included, by path.
        fingerprints: theirs, uint8, (n, 1072).
        groups: key of each photo's group of copies and near-duplicates, its smallest SHA-256
            (of one that is not for training alone, where there is any).
        bad: what cannot be decoded, or is too small.
        ambiguous: keys of the groups that are left out, as they have two labels.

    """

    where: Place
    files: Sequence[PhotoFile]
    dropped: Sequence[PhotoFile]
    relabelled: int
    photos: Sequence[GoodPhoto]
    fingerprints: NDArray[np.uint8]
    groups: Sequence[str]
    bad: Sequence[BadPhoto]
    ambiguous: Set[str]

    @cached_property
    def originals(self) -> list[int]:
        """Places of the photos that prepare keeps.

        Of byte-identical ones the first, or the first that is not for training alone.
        """
        first: dict[str, int] = {}
        for i in sorted(range(len(self.photos)), key=lambda i: self.photos[i].file.train_only):
            if self.groups[i] not in self.ambiguous:
                first.setdefault(self.photos[i].sha256, i)
        return sorted(first.values())

    @property
    def left_out(self) -> list[BadPhoto]:
        """What prepare does not keep, and why.

        Bad files, then dropped ones, then those with two labels, then byte copies.
        """
        first = {self.photos[i].sha256: self.photos[i].file for i in self.originals}
        dropped = [BadPhoto(file, "dropped", f"by {overrides.FILE}") for file in self.dropped]
        copies = [
            BadPhoto(photo.file, "copy", f"same bytes as {first[photo.sha256].path!r}")
            for photo in self.photos
            if photo.file != first.get(photo.sha256, photo.file)
        ]
        alike = [
            BadPhoto(photo.file, "two_labels", f"looks like {_named(_other(photo, group))}")
            for group in self.duplicates
            if self.ambiguous and two_labels(group)
            for photo in group
        ]
        return [*self.bad, *dropped, *alike, *copies]

    @property
    def duplicates(self) -> list[list[GoodPhoto]]:
        """The groups of two and more photos that are the same or nearly so."""
        members: dict[str, list[GoodPhoto]] = defaultdict(list)
        for photo, group in zip(self.photos, self.groups, strict=True):
            members[group].append(photo)
        return [group for group in members.values() if len(group) > 1]

    def report_bad_photos(self, *, fail: bool) -> None:
        """Name the bad photos on standard error, or raise with them."""
        lines = [f"{photo.file.path!r}: {photo.detail} ({photo.reason})" for photo in self.bad]
        _report(
            f"{len(self.bad)} bad photos",
            lines,
            "Mend or remove them, or leave them out with prepare.on_bad_photo: skip." * fail,
        )

    def report_two_labels(self, *, fail: bool) -> None:
        """Name the groups of duplicates that have two labels, or raise with them."""
        conflicts = [group for group in self.duplicates if two_labels(group)]
        _report(
            f"{sum(map(len, conflicts))} photos that are the same or nearly so, but of different"
            " classes",
            [_cut([_named(photo.file) for photo in group], " = ") for group in conflicts],
            "Keep each in one class, by its folder or by `meadow review`, or leave all of them out"
            " with prepare.on_two_labels: drop. If they only look alike to the program, set"
            " prepare.near_duplicates: false." * fail,
        )

    @property
    def too_small(self) -> list[str]:
        """What is wrong with each class that has fewer groups of photos than there are splits."""
        photos, groups = Counter[str](), defaultdict[str, set[str]](set)
        for i in self.originals:
            file = self.photos[i].file
            if not file.train_only:
                photos[file.label] += 1
                groups[file.label].add(self.groups[i])
        return [
            f"class {label!r} has {photos[label]} usable photos"
            + (f", of which only {different} differ" if different < photos[label] else "")
            for label in sorted({file.label for file in self.files})
            if (different := len(groups[label])) < len(splits.SPLITS)
        ]

    def refuse_small_classes(self) -> None:
        """Raise if a class has fewer groups of photos than there are splits."""
        if self.too_small:
            raise MeadowError(
                _cut(self.too_small, "\n")
                + f"\n{len(splits.SPLITS)} different ones a class are the least, so that train, val"
                " and test each get one; near-duplicates, such as a burst, count once. Add photos,"
                " or remove the class. If different photos only look alike to the program, set"
                " prepare.near_duplicates: false."
            )


def survey(
    chosen: params.Params, keep: Callable[[NDArray[np.uint8]], object] = lambda _: None
) -> Survey:
    """Inspect the set of params.yaml, with the decisions of data/overrides.csv.

    Args:
        chosen: all parameters; those of data, prepare and runtime count.
        keep: is called with the network's input of each of `Survey.photos`, in their order.

    Raises:
        MeadowError: there is no set, or an override is wrong.

    """
    where, machines, p = places.place(chosen.data.dir), chosen.runtime.machines, chosen.prepare
    preprocessing = Preprocessing(p.size, p.resize)
    files = discovery.find(where)
    taken, dropped = overrides.apply(where, files)
    inspect = partial(
        inspection.inspect,
        machines.path(where),
        preprocessing=preprocessing,
        min_side=p.min_side,
    )
    photos: list[GoodPhoto] = []
    bad: list[BadPhoto] = []
    spool = bytearray()
    for seen in parallel.ordered(inspect, taken, machines.reading(where), title="photos"):
        if isinstance(seen, BadPhoto):
            bad.append(seen)
        else:
            photos.append(seen[0])
            keep(seen[1])
            spool += seen[2].data
    fingerprints = np.frombuffer(spool, np.uint8).reshape(len(photos), near_duplicates.WIDTH)
    groups = [photo.sha256 for photo in photos]
    if p.near_duplicates:
        groups = _groups(photos, near_duplicates.near_duplicates(fingerprints, machines))
    first_labels: dict[str, str] = {}
    ambiguous = {
        group
        for photo, group in zip(photos, groups, strict=True)
        if first_labels.setdefault(group, photo.file.label) != photo.file.label
    }
    return Survey(
        where=where,
        files=files,
        dropped=dropped,
        relabelled=len(set(taken) - set(files)),
        photos=photos,
        fingerprints=fingerprints,
        groups=groups,
        bad=bad,
        ambiguous=ambiguous if p.on_two_labels == "drop" else set(),
    )


def two_labels(group: Sequence[GoodPhoto]) -> bool:
    """Tell whether a group of duplicates has two labels: then one of them is wrong."""
    return len({photo.file.label for photo in group}) > 1


def _groups(photos: Sequence[GoodPhoto], pairs: Iterable[tuple[int, int]]) -> list[str]:
    numbers = near_duplicates.duplicate_groups(len(photos), pairs)
    # One for training alone gives a group its key only where there is no other: it moves no photo.
    smallest: dict[int, tuple[bool, str]] = {}
    for photo, number in zip(photos, numbers, strict=True):
        key = photo.file.train_only, photo.sha256
        smallest[number] = min(key, smallest.get(number, key))
    return [smallest[number][1] for number in numbers]


def _other(photo: GoodPhoto, group: Sequence[GoodPhoto]) -> PhotoFile:
    """Return the first photo of a group that has another label."""
    return next(other.file for other in group if other.file.label != photo.file.label)


def _report(what: str, lines: Sequence[str], remedy: str) -> None:
    """Say on standard error that photos are left out, or raise if there is a remedy to name."""
    if not lines:
        return
    listed = f"{what}:\n  " + _cut(lines, "\n  ")
    if remedy:
        raise MeadowError(f"{listed}\n{remedy}")
    print(f"left out {listed}", file=sys.stderr)


def _cut(names: Sequence[str], between: str) -> str:
    more = [f"... and {len(names) - LISTED} more"] if len(names) > LISTED else []
    return between.join([*names[:LISTED], *more])


def _named(file: PhotoFile) -> str:
    moved = file.label != file.path.split("/")[0]
    return f"{file.path!r}" + f" (relabelled {file.label!r})" * moved
