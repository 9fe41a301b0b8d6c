"""A look at each file of a set, and then at all of them together: what is bad, and what belongs."""

import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.curation import near_duplicates
from meadow.curation.discovery import PhotoFile
from meadow.errors import MeadowError
from meadow.pipeline import splits
from meadow.pipeline.image import PhotoError, Preprocessing, decode, opened

SHOWN = 20  # bad photos named in the terminal; left_out.csv has them all
MAX_BYTES = 100_000_000  # of one file: far above any photo of 40 million pixels


@dataclass(frozen=True)
class GoodPhoto:
    """A photo that was decoded.

    Attributes:
        file: which one.
        sha256: of the file's bytes.
        width, height: as stored, pixels.
        size: of the file, bytes.
        format: JPEG, PNG or WEBP.
        fingerprint: for near-duplicates, see `near_duplicates.fingerprint`.
        pixels: SHA-256 of the network's input, the key of the photo's frozen features.

    """

    file: PhotoFile
    sha256: str
    width: int
    height: int
    size: int
    format: str
    fingerprint: NDArray[np.uint8]
    pixels: str


@dataclass(frozen=True)
class BadPhoto:
    """A file that cannot be used: `reason` in one word, `detail` in a sentence."""

    file: PhotoFile
    reason: str
    detail: str


def inspect(
    folder: Path, file: PhotoFile, preprocessing: Preprocessing, min_side: int
) -> tuple[GoodPhoto, NDArray[np.uint8]] | BadPhoto:
    """Read and decode one file.

    Args:
        folder: the set's folder; a link that leads out of it is bad.
        file: the file.
        preprocessing: makes the network's input.
        min_side: a photo with a shorter side, in pixels, is bad.

    Returns:
        The photo and the network's input, uint8, (size, size, 3); or what is wrong with it.

    """
    path = folder / file.path
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            return BadPhoto(file, "link", "a link that leads out of the set")
        if not path.is_file():
            return BadPhoto(file, "link", "a link to a folder or to nothing")
        if path.stat().st_size > MAX_BYTES:
            return BadPhoto(file, "too_large", f"more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
        header = opened(data)
        width, height = header.size
        if min(width, height) < min_side:
            return BadPhoto(file, "too_small", f"{width} x {height}: a side is under {min_side} px")
        image = decode(data, preprocessing.enough)
    except PhotoError as error:
        return BadPhoto(file, error.reason, str(error))
    except OSError as error:
        return BadPhoto(file, "unreadable", error.strerror or str(error))
    pixels = preprocessing.resized(image)
    photo = GoodPhoto(
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        size=len(data),
        format=str(header.format),
        fingerprint=near_duplicates.fingerprint(image),
        pixels=hashlib.sha256(pixels.data).hexdigest(),
    )
    return photo, pixels


def report(bad: Sequence[BadPhoto], *, fail: bool) -> None:
    """Name the bad photos on stderr, or fail with them."""
    if not bad:
        return
    lines = [f"  {photo.file.path!r}: {photo.detail} ({photo.reason})" for photo in bad[:SHOWN]]
    if len(bad) > SHOWN:
        lines.append(f"  ... and {len(bad) - SHOWN} more")
    listed = "\n".join(lines)
    if fail:
        raise MeadowError(
            f"{len(bad)} bad photos:\n{listed}\nMend or remove them, or leave them out with"
            " prepare.on_bad_photo: skip."
        )
    print(f"left out {len(bad)} bad photos:\n{listed}", file=sys.stderr)


def group_keys(photos: Sequence[GoodPhoto], *, near: bool) -> list[str]:
    """Return for each photo the smallest SHA-256 of its group of copies and near-duplicates."""
    if not near or not photos:
        return [photo.sha256 for photo in photos]
    pairs = near_duplicates.near_duplicates(np.stack([photo.fingerprint for photo in photos]))
    groups = near_duplicates.duplicate_groups(len(photos), pairs)
    smallest: dict[int, str] = {}
    for photo, group in zip(photos, groups, strict=True):
        smallest[group] = min(photo.sha256, smallest.get(group, photo.sha256))
    return [smallest[group] for group in groups]


def duplicates_among(photos: Sequence[GoodPhoto], groups: Sequence[str]) -> list[list[GoodPhoto]]:
    """Return the groups of two and more photos that are the same or nearly so."""
    members: dict[str, list[GoodPhoto]] = defaultdict(list)
    for photo, group in zip(photos, groups, strict=True):
        members[group].append(photo)
    return [group for group in members.values() if len(group) > 1]


def two_labels(group: Sequence[GoodPhoto]) -> bool:
    """Tell whether a group of duplicates has two labels: then one of them is wrong."""
    return len({photo.file.label for photo in group}) > 1


def refuse_two_labels(photos: Sequence[GoodPhoto], groups: Sequence[str]) -> None:
    """Raise if a group of duplicates has two labels."""
    conflicts = [
        "  " + " = ".join(_named(photo.file) for photo in group)
        for group in duplicates_among(photos, groups)
        if two_labels(group)
    ]
    if conflicts:
        raise MeadowError(
            "these photos are the same or nearly so, but of different classes:\n"
            + "\n".join(conflicts[:SHOWN])
            + "\nKeep each in one class, by its folder or by `meadow review`. If they only look"
            " alike to the program, set prepare.near_duplicates: false."
        )


def _named(file: PhotoFile) -> str:
    moved = file.label != file.path.split("/")[0]
    return f"{file.path!r}" + f" (relabelled {file.label!r})" * moved


def without_copies(photos: Sequence[GoodPhoto]) -> tuple[list[int], list[BadPhoto]]:
    """Return the places of the photos without byte-identical copies, and the copies."""
    first: dict[str, GoodPhoto] = {}
    originals, copies = [], []
    for i, photo in enumerate(photos):
        original = first.setdefault(photo.sha256, photo)
        if original is photo:
            originals.append(i)
        else:
            copies.append(BadPhoto(photo.file, "copy", f"same bytes as {original.file.path!r}"))
    return originals, copies


def refuse_small_classes(photos: Sequence[GoodPhoto], labels: set[str]) -> None:
    """Raise if a class has fewer photos than there are splits."""
    counts = Counter(photo.file.label for photo in photos)
    for label in sorted(labels):
        if counts[label] < len(splits.SPLITS):
            raise MeadowError(
                f"class {label!r} has {counts[label]} usable photos; {len(splits.SPLITS)} different"
                " ones are the least, so that train, val and test each get one. Add photos, or"
                " remove the class."
            )
