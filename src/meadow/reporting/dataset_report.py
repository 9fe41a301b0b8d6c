"""Look at a photo set before anything is learned from it: one page, made from the files alone.

The photos go through the survey of prepare, so the page leaves out what prepare leaves out.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow import params
from meadow.curation.inspection import BadPhoto, GoodPhoto
from meadow.curation.survey import survey, two_labels
from meadow.pipeline import atomic, places
from meadow.pipeline.hashing import hash_fraction
from meadow.pipeline.places import Place
from meadow.reporting import html
from meadow.reporting.charts import Histogram
from meadow.reporting.html import Picture, Table
from meadow.reporting.metadata_leakage import Leak
from meadow.reporting.neighbours import Neighbours
from meadow.reporting.photo_set import NEIGHBOUR, PhotoSet

SHEET = 24  # photos of a class on its contact sheet; fewer where there are many classes
SHEETS = 480  # on all sheets together
CLASSES = 100  # that have a sheet
CHARTS = 12  # classes that have histograms
ALIKE = 12  # pairs that are alike by features
GROUPS, COPIES = 20, 6  # groups of near-duplicates that are shown, photos of each
ODD, ENDS = 24, 6  # outliers, smallest and largest
NAMED = 100  # bad files in the table
BARS = 24
Floats = NDArray[np.float64]


def data_report(page: Path) -> None:
    """Write the page, and print what needs a look.

    Args:
        page: where to.

    Raises:
        MeadowError: there is no set, or an override is wrong.

    """
    photo_set = PhotoSet(survey(params.load()))
    with atomic.whole(page) as part:
        part.write_text(as_html(photo_set), "utf-8")
    sizes = {name: len(places) for name, places in photo_set.by_class.items()}
    counts = ", ".join(f"{count} {name!r}" for name, count in list(sizes.items())[:CHARTS])
    more = f" and {len(sizes) - CHARTS} more" if len(sizes) > CHARTS else ""
    print(
        f"{photo_set.survey.where}: {len(photo_set.photos)} of {len(photo_set.survey.files)} files"
        f" can be used: {counts}{more}."
    )
    for warning in photo_set.warnings:
        print(f"Look: {warning}")
    print(f"{page} shows them.")


def as_html(photo_set: PhotoSet) -> str:
    """Return the page."""
    photos, where = photo_set.photos, photo_set.survey.where

    def pictures(shown: Sequence[GoodPhoto], caption: Callable[[GoodPhoto], str]) -> list[Picture]:
        return [_picture(where, photo, caption(photo)) for photo in shown]

    by_area = sorted(photos, key=lambda photo: (photo.width * photo.height, photo.file.path))
    return html.render(
        "dataset_report.html",
        title=f"Photos of {where}",
        photo_set=photo_set,
        near=len({photo.file.path for group in photo_set.duplicates for photo in group}),
        classes=_classes(photo_set),
        leaks=_leaks(photo_set.leaks),
        reasons=Counter(bad.reason for bad in photo_set.left_out),
        left_out=_left_out(photo_set.left_out),
        groups=[
            {
                "size": len(group),
                "two_labels": two_labels(group),
                "pictures": pictures(group[:COPIES], _size),
            }
            for group in photo_set.duplicates[:GROUPS]
        ],
        alike=_alike(photo_set, pictures),
        neighbour=NEIGHBOUR,
        outliers=pictures(photo_set.outliers[:ODD], _label) if photos else [],
        smallest=pictures(by_area[:ENDS], _size),
        largest=pictures(by_area[: -ENDS - 1 : -1], _size),
        histograms=_histograms(photo_set) if photos else {},
        charts=CHARTS,
        sheets={
            name: pictures(sample, lambda _: "") for name, sample in _samples(photo_set).items()
        },
    )


def _alike(
    photo_set: PhotoSet,
    pictures: Callable[[Sequence[GoodPhoto], Callable[[GoodPhoto], str]], list[Picture]],
) -> list[tuple[float, list[Picture]]]:
    """Return distance and photos of the pairs that the network takes for most alike."""
    known = Neighbours.known()
    photos = {(photo.file.path, photo.sha256): photo for photo in photo_set.photos}
    pairs = []
    for distance, *rows in known.pairs(ALIKE) if known else []:
        pair = [photos[key] for row in rows if (key := (row.path, row.sha256)) in photos]
        if len(pair) == len(rows):  # the set is still that of prepare
            pairs.append((distance, pictures(pair, _size)))
    return pairs


def _classes(photo_set: PhotoSet) -> Table:
    header = ["class", "photos", "short side, px", "file, KB", "brightness", "formats"]
    rows = []
    for name, members in photo_set.by_class.items():
        formats = Counter(photo_set.photos[i].format for i in members).most_common()
        columns = (photo_set.short_side, photo_set.kilobytes, photo_set.brightness)
        middles = [_middle(column[members]) for column in columns]
        listed = ", ".join(f"{count} {name}" for name, count in formats)
        rows.append([name, str(len(members)), *middles, listed])
    return Table("Photos of each class", header, rows)


def _middle(values: Floats) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _leaks(leaks: Sequence[Leak]) -> Table:
    rows = [
        [
            leak.name,
            f"{leak.accuracy:.1%}",
            f"{leak.low:.1%} to {leak.high:.1%}",
            "more than chance" if leak.significant else "could be chance",
        ]
        for leak in leaks
    ]
    return Table("Metadata leakage", ["known", "accuracy", "95 % interval", "verdict"], rows)


def _left_out(left_out: Sequence[BadPhoto]) -> Table:
    rows = [[bad.file.path, bad.reason, bad.detail] for bad in left_out[:NAMED]]
    return Table("Files left out", ["file", "reason", "detail"], rows)


def _histograms(photo_set: PhotoSet) -> dict[str, list[Histogram]]:
    """Return for each measure a chart of each of the largest classes, all on one axis."""
    by_class = photo_set.by_class
    largest = sorted(by_class, key=lambda name: (-len(by_class[name]), name))[:CHARTS]
    charts: dict[str, list[Histogram]] = {}
    for title, values, ends in (
        ("Brightness, 0 to 255", photo_set.brightness, (0.0, 255.0)),
        ("Short side, px", photo_set.short_side, None),
        ("File, KB", photo_set.kilobytes, None),
    ):
        low, high = ends or (values.min(), np.quantile(values, 0.99, method="higher"))
        edges = np.linspace(low, max(high, low + 1), BARS + 1)
        more = " and more" if values.max() > edges[-1] else ""
        charts[title] = [
            Histogram(
                name,
                np.histogram(np.minimum(values[by_class[name]], edges[-1]), edges)[0].tolist(),
                f"{edges[0]:.0f}",
                f"{edges[-1]:.0f}{more}",
                f"median {_middle(values[by_class[name]])}",
            )
            for name in largest
        ]
    return charts


def _samples(photo_set: PhotoSet) -> dict[str, list[GoodPhoto]]:
    """Return some photos of each class by the hash of their content."""
    names = list(photo_set.by_class)[:CLASSES]
    count = max(4, min(SHEET, SHEETS // max(1, len(names))))
    samples = {}
    for name in names:
        photos = [photo_set.photos[i] for i in photo_set.by_class[name]]
        samples[name] = sorted(photos, key=lambda p: hash_fraction(p.sha256))[:count]
    return samples


def _label(photo: GoodPhoto) -> str:
    return photo.file.label


def _size(photo: GoodPhoto) -> str:
    return f"{photo.file.label}\n{photo.width} x {photo.height} px, {photo.size / 1000:.0f} KB"


def _picture(where: Place, photo: GoodPhoto, caption: str) -> Picture:
    return Picture.of(
        places.look(where, photo.file.path),
        photo.file.label,
        f"{caption}\n{photo.file.path}".lstrip("\n"),
    )
