"""Check every photo of the set, split it by content, and pack what training needs.

Reads:  the photos (data.dir), what was decided on some of them (data/overrides.csv), section
        `prepare` of params.yaml.
Writes: data/prepared/ (manifest.csv, left_out.csv, classes.json, train-*.npy, val-*.npy)
        and metrics/prepare.json.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meadow import params
from meadow.curation.inspection import BadPhoto
from meadow.curation.survey import Survey, survey
from meadow.errors import MeadowError, run
from meadow.pipeline import atomic, manifest, splits
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.manifest import Row
from meadow.pipeline.shards import Spool

METRICS = Path("metrics/prepare.json")


def prepare() -> None:
    """Run the stage."""
    chosen = params.load()
    p = chosen.prepare
    if p.val + p.test >= 1:
        raise MeadowError(f"prepare.val {p.val} + prepare.test {p.test} leave nothing to train on.")
    with atomic.whole(manifest.FOLDER) as out, Spool(out, p.size) as spool:
        photo_set = survey(chosen, keep=spool.append)
        photo_set.report_bad_photos(fail=p.on_bad_photo == "fail")
        photo_set.report_two_labels(fail=p.on_two_labels == "fail")
        photo_set.refuse_small_classes()
        places = split_rows(photo_set, p)
        for name in ("train", "val"):
            pairs = zip(photo_set.originals, places, strict=True)
            packed = {i: row.pixels_sha256 for i, row in pairs if row and row.split == name}
            spool.pack([*packed], [*packed.values()], name)
        alike, rows = photos_alike(photo_set, places), [row for row in places if row]
        classes = sorted({row.label for row in rows})
        manifest.write_manifest(out, classes, Preprocessing(p.size, p.resize), rows)
        left_out = (
            {"path": photo.file.path, "reason": photo.reason, "detail": photo.detail}
            for photo in [*photo_set.left_out, *alike]
        )
        manifest.write_csv(out / "left_out.csv", ["path", "reason", "detail"], left_out)
    metrics = figures(photo_set, rows, alike)
    atomic.write_json(METRICS, metrics)
    parts = ", ".join(f"{metrics[name]} {name}" for name in splits.SPLITS)
    print(
        f"{metrics['kept']} of {metrics['found']} photos kept, in {metrics['classes']} classes:"
        f" {parts}; {metrics['near_duplicates']} look like another"
    )


def split_rows(photo_set: Survey, p: params.Prepare) -> list[Row | None]:
    """Return the manifest's rows: the kept photos, each in its split.

    None stands for a photo that is for training alone and looks like one of val or test.
    """
    photos = [photo_set.photos[i] for i in photo_set.originals]
    groups = [photo_set.groups[i] for i in photo_set.originals]
    both = [pair for pair in zip(photos, groups, strict=True) if not pair[0].file.train_only]
    labels, keys = [photo.file.label for photo, _ in both], [group for _, group in both]
    drawn = splits.assign(labels, keys, val=p.val, test=p.test, seed=p.seed)
    split: dict[str, splits.Split] = dict(zip(keys, drawn, strict=True))
    return [
        None
        if photo.file.train_only and split.get(group, "train") != "train"
        else Row(
            path=photo.file.path,
            label=photo.file.label,
            split=split.get(group, "train"),
            group=group,
            sha256=photo.sha256,
            pixels_sha256=photo.pixels_sha256,
            width=photo.width,
            height=photo.height,
            size=photo.size,
        )
        for photo, group in zip(photos, groups, strict=True)
    ]


def photos_alike(photo_set: Survey, rows: Sequence[Row | None]) -> list[BadPhoto]:
    """Return the photos that `split_rows` leaves out, and why."""
    return [
        BadPhoto(photo_set.photos[i].file, "train_only", "looks like a photo of val or test")
        for i, row in zip(photo_set.originals, rows, strict=True)
        if not row
    ]


def figures(photo_set: Survey, rows: Sequence[Row], alike: Sequence[BadPhoto]) -> dict[str, Any]:
    """Return what goes to metrics/prepare.json."""
    per_class = Counter(row.label for row in rows)
    per_split = Counter(row.split for row in rows)
    reasons = Counter(photo.reason for photo in [*photo_set.left_out, *alike])
    sizes = Counter(row.group for row in rows)
    return {
        "found": len(photo_set.files),
        "kept": len(rows),
        **{split: per_split[split] for split in splits.SPLITS},
        "classes": len(per_class),
        "smallest_class": min(per_class.values()),
        "largest_class": max(per_class.values()),
        "near_duplicates": sum(size for size in sizes.values() if size > 1),
        "left_out": {"total": reasons.total(), **dict(sorted(reasons.items()))},
        "overrides": {"dropped": len(photo_set.dropped), "relabelled": photo_set.relabelled},
    }


if __name__ == "__main__":
    run(prepare)
