"""Check every photo of the set, split it by content, and pack what training needs.

Reads:  the photos (data.dir), what was decided on some of them (data/overrides.csv), section
        `prepare` of params.yaml.
Writes: data/prepared/ (manifest.csv, left_out.csv, classes.json, train.npy, val.npy) and
        metrics/prepare.json.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from meadow import params
from meadow.curation import discovery, inspection, overrides
from meadow.curation.inspection import BadPhoto, GoodPhoto
from meadow.errors import MeadowError, run
from meadow.pipeline import atomic, manifest, parallel, splits
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.manifest import Row, Spool

METRICS = Path("metrics/prepare.json")


def prepare() -> None:
    """Run the stage."""
    folder = Path(params.load("data", params.Data).dir)
    p = params.load("prepare", params.Prepare)
    workers = params.load("runtime", params.Runtime).workers
    if p.val + p.test >= 1:
        raise MeadowError(f"prepare.val {p.val} + prepare.test {p.test} leave nothing to train on.")
    preprocessing = Preprocessing(p.size, p.resize)
    found = discovery.find(folder)
    files, dropped = overrides.apply(folder, found)

    def look(file: discovery.PhotoFile) -> BadPhoto | tuple[GoodPhoto, NDArray[np.uint8]]:
        return inspection.inspect(folder, file, preprocessing, p.min_side)

    with atomic.whole(manifest.FOLDER) as out, Spool(out, p.size) as spool:
        good: list[GoodPhoto] = []
        left_out: list[BadPhoto] = []
        for seen in parallel.ordered(look, files, workers=workers, title="prepare"):
            if isinstance(seen, BadPhoto):
                left_out.append(seen)
            else:
                good.append(seen[0])
                spool.append(seen[1])
        inspection.report(left_out, fail=p.on_bad_photo == "fail")

        groups = inspection.group_keys(good, near=p.near_duplicates)
        inspection.refuse_two_labels(good, groups)
        originals, copies = inspection.without_copies(good)
        left_out += [BadPhoto(f, "dropped", f"by {overrides.FILE}") for f in dropped] + copies
        inspection.refuse_small_classes([good[i] for i in originals], {f.label for f in found})

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
        manifest.write_manifest(out, sorted({row.label for row in rows}), preprocessing, rows)
        table = ({"path": b.file.path, "reason": b.reason, "detail": b.detail} for b in left_out)
        manifest.write_csv(out / "left_out.csv", ["path", "reason", "detail"], table)
    decided = {"dropped": len(dropped), "relabelled": len(set(files) - set(found))}
    known = figures(len(found), rows, left_out)
    atomic.write_json(METRICS, known | {"overrides": decided})
    parts = ", ".join(f"{known[name]} {name}" for name in splits.SPLITS)
    print(
        f"{known['kept']} of {known['found']} photos kept, in {known['classes']} classes: {parts};"
        f" {known['near_duplicates']} look like another"
    )


def figures(found: int, rows: Sequence[Row], left_out: Sequence[BadPhoto]) -> dict[str, Any]:
    """Return what goes to metrics/prepare.json, but for the overrides."""
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
