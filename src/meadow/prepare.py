"""Check every photo of the set, split it by content, and pack what training needs.

Reads:  the photos (data.dir), section `prepare` of params.yaml.
Writes: data/prepared/ (manifest.csv, left_out.csv, classes.json, train.npy, val.npy) and
        metrics/prepare.json.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from meadow import duplicates, outputs, parallel, params, photo_set, prepared, splits
from meadow.errors import MeadowError, run
from meadow.inspection import BadPhoto, GoodPhoto, inspect
from meadow.photos import MIN_SIDE, Preprocessing
from meadow.prepared import Row, Spool

METRICS = Path("metrics/prepare.json")
SHOWN = 20  # bad photos named in the terminal; left_out.csv has them all


class PrepareParams(params.Section):
    """Section `prepare`; params.yaml says what each key means."""

    size: int = Field(ge=32, le=1024)
    resize: Literal["squash", "crop"]
    val: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)
    min_side: int = Field(ge=MIN_SIDE)
    near_duplicates: bool
    on_bad_photo: Literal["skip", "fail"]


def prepare() -> None:
    """Run the stage."""
    folder = Path(params.load("data", params.Data).dir)
    p = params.load("prepare", PrepareParams)
    workers = params.load("runtime", params.Runtime).workers
    if p.val + p.test >= 1:
        raise MeadowError(f"prepare.val {p.val} + prepare.test {p.test} leave nothing to train on.")
    preprocessing = Preprocessing(p.size, p.resize)
    files = photo_set.find(folder)

    def look(file: photo_set.PhotoFile) -> BadPhoto | tuple[GoodPhoto, NDArray[np.uint8]]:
        return inspect(folder, file, preprocessing, p.min_side)

    with outputs.whole(prepared.FOLDER) as out, Spool(out, p.size) as spool:
        good: list[GoodPhoto] = []
        left_out: list[BadPhoto] = []
        for seen in parallel.ordered(look, files, workers=workers, title="prepare"):
            if isinstance(seen, BadPhoto):
                left_out.append(seen)
            else:
                good.append(seen[0])
                spool.append(seen[1])
        report(left_out, fail=p.on_bad_photo == "fail")

        groups = group_keys(good, near=p.near_duplicates)
        refuse_two_labels(good, groups)
        originals, copies = without_copies(good)
        left_out += copies
        refuse_small_classes([good[i] for i in originals], {f.label for f in files})

        split = splits.assign(
            [good[i].file.label for i in originals],
            [groups[i] for i in originals],
            val=p.val,
            test=p.test,
            seed=p.seed,
        )
        rows = [
            Row(
                path=photo.file.path,
                label=photo.file.label,
                split=each,
                group=groups[i],
                sha256=photo.sha256,
                pixels=photo.pixels,
                width=photo.width,
                height=photo.height,
                size=photo.size,
            )
            for i, each in zip(originals, split, strict=True)
            for photo in [good[i]]
        ]
        for name in ("train", "val"):
            places = [i for i, row in zip(originals, rows, strict=True) if row.split == name]
            spool.pack(places, out / f"{name}.npy")
        prepared.write_manifest(out, sorted({row.label for row in rows}), preprocessing, rows)
        table = ({"path": b.file.path, "reason": b.reason, "detail": b.detail} for b in left_out)
        prepared.write_csv(out / "left_out.csv", ["path", "reason", "detail"], table)
    outputs.write_json(METRICS, figures(len(files), rows, left_out))


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
    pairs = duplicates.near_duplicates(np.stack([photo.fingerprint for photo in photos]))
    groups = duplicates.duplicate_groups(len(photos), pairs)
    smallest: dict[int, str] = {}
    for photo, group in zip(photos, groups, strict=True):
        smallest[group] = min(photo.sha256, smallest.get(group, photo.sha256))
    return [smallest[group] for group in groups]


def refuse_two_labels(photos: Sequence[GoodPhoto], groups: Sequence[str]) -> None:
    """Raise if a group of duplicates lies in two class folders: one of the labels is wrong."""
    members: dict[str, list[GoodPhoto]] = defaultdict(list)
    for photo, group in zip(photos, groups, strict=True):
        members[group].append(photo)
    conflicts = [
        "  " + " = ".join(repr(photo.file.path) for photo in group)
        for group in members.values()
        if len({photo.file.label for photo in group}) > 1
    ]
    if conflicts:
        raise MeadowError(
            "these photos are the same or nearly so, but lie in different classes:\n"
            + "\n".join(conflicts[:SHOWN])
            + "\nKeep each in one class. If they only look alike to the program, set"
            " prepare.near_duplicates: false."
        )


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


def figures(found: int, rows: Sequence[Row], left_out: Sequence[BadPhoto]) -> dict[str, Any]:
    """Return what goes to metrics/prepare.json."""
    per_class = Counter(row.label for row in rows)
    per_split = Counter(row.split for row in rows)
    reasons = Counter(photo.reason for photo in left_out)
    sizes = Counter(row.group for row in rows)
    return {
        "found": found,
        "kept": len(rows),
        **{split: per_split[split] for split in splits.SPLITS},
        "classes": len(per_class),
        "smallest_class": min(per_class.values()),
        "largest_class": max(per_class.values()),
        "near_duplicates": sum(size for size in sizes.values() if size > 1),
        "left_out": {"total": len(left_out), **dict(sorted(reasons.items()))},
    }


if __name__ == "__main__":
    run(prepare)
