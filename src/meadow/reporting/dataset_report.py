"""Look at a photo set before anything is learned from it: one page, made from the files alone.

The photos go through the survey of prepare, so the page leaves out what prepare leaves out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from meadow import params
from meadow.curation import near_duplicates
from meadow.curation.inspection import BadPhoto, GoodPhoto
from meadow.curation.survey import Survey, survey, two_labels
from meadow.pipeline import atomic, splits
from meadow.pipeline.hashing import hash_fraction
from meadow.reporting import html, metadata_leakage
from meadow.reporting.charts import Histogram
from meadow.reporting.html import Picture, Table
from meadow.reporting.metadata_leakage import Leak

SHEET = 24  # photos of a class on its contact sheet; fewer where there are many classes
SHEETS = 480  # on all sheets together
CLASSES = 100  # that have a sheet
CHARTS = 12  # classes that have histograms
GROUPS, COPIES = 20, 6  # groups of near-duplicates that are shown, photos of each
ODD, ENDS = 24, 6  # outliers, smallest and largest
NAMED = 100  # bad files in the table
BARS = 24
NEIGHBOUR, REFERENCE = 5, 1000  # of the outliers: which neighbour counts, of how many photos
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhotoSet:
    """A set of photos, and what in it needs a look.

    Attributes:
        survey: all files; the rest is about the n photos that prepare would keep, by path.

    """

    survey: Survey

    @cached_property
    def photos(self) -> list[GoodPhoto]:
        """The photos that prepare would keep."""
        return [self.survey.photos[i] for i in self.survey.originals]

    @cached_property
    def by_class(self) -> dict[str, list[int]]:
        """Places of the photos of each class, by name."""
        places = defaultdict(list)
        for i, photo in enumerate(self.photos):
            places[photo.file.label].append(i)
        return dict(sorted(places.items()))

    @cached_property
    def duplicates(self) -> list[list[GoodPhoto]]:
        """Groups of photos that are the same or nearly so; those with two labels first."""
        return sorted(
            self.survey.duplicates, key=lambda group: (not two_labels(group), -len(group))
        )

    @cached_property
    def left_out(self) -> list[BadPhoto]:
        """What prepare would leave out, by path."""
        return sorted(self.survey.left_out, key=lambda bad: bad.file.path)

    @cached_property
    def brightness(self) -> Floats:
        """Mean of each photo's 4x4 thumbnail over the three colours, 0 to 255, (n,)."""
        mean: Floats = self._colours.mean(axis=1, dtype=np.float64)
        return mean

    @cached_property
    def short_side(self) -> Floats:
        """Shorter side of each photo, pixels, (n,)."""
        return np.array([min(photo.width, photo.height) for photo in self.photos], np.float64)

    @cached_property
    def kilobytes(self) -> Floats:
        """Size of each photo's file, (n,)."""
        return np.array([photo.size / 1000 for photo in self.photos])

    @cached_property
    def outliers(self) -> list[GoodPhoto]:
        """The photos least like the others of their class, the least first.

        By the distance to the k-th nearest photo that is no near-duplicate, in the colours of the
        thumbnail and the contrast.
        """
        grey = self._fingerprints[:, : near_duplicates.SIDE**2]
        contrast = grey.std(axis=1, dtype=np.float64)
        points = np.column_stack([self._colours.astype(np.float64) / 255, contrast / 64])
        groups = np.array(self._groups)
        distance = np.zeros(len(self.photos))
        with threadpool_limits(1):  # the same sums on every machine
            for places in self.by_class.values():
                order = sorted(places, key=lambda i: hash_fraction(self.photos[i].sha256))
                reference = order[:REFERENCE]
                k = min(NEIGHBOUR, len(reference) - 1)
                for i in places:
                    away = np.sqrt(((points[reference] - points[i]) ** 2).sum(axis=1))
                    away = np.sort(away[groups[reference] != groups[i]])
                    distance[i] = away[min(k, len(away)) - 1] if len(away) else 0
        order = sorted(range(len(distance)), key=lambda i: (-round(float(distance[i]), 6), i))
        return [self.photos[i] for i in order]

    @cached_property
    def leaks(self) -> list[Leak]:
        """What the files alone say of the classes; see `metadata_leakage.check`."""
        names = list(self.by_class)
        formats = sorted({photo.format for photo in self.photos})
        sizes = [(photo.size, photo.width, photo.height) for photo in self.photos]
        size, width, height = np.array(sizes, np.float64).reshape(-1, 3).T
        columns = {
            "file size": size,
            "width": width,
            "height": height,
            "shape (width / height)": width / height,
            "bytes per pixel": size / (width * height),
            "file format": np.array([formats.index(p.format) for p in self.photos], np.float64),
        }
        targets = np.array([names.index(photo.file.label) for photo in self.photos], np.int64)
        return metadata_leakage.check(columns, targets, self._groups, len(names))

    @property
    def warnings(self) -> list[str]:
        """What needs a look, the gravest first."""
        warnings = []
        if conflicts := sum(map(two_labels, self.duplicates)):
            warnings.append(
                f"near-duplicates with two labels: {conflicts}. prepare fails until each group is"
                " in one class, by its folder or by `meadow review`."
            )
        labels = {file.label for file in self.survey.files}
        usable = {label: len(self.by_class.get(label, [])) for label in sorted(labels)}
        warnings += [
            f"class {label!r} has {count} usable photos; prepare needs {len(splits.SPLITS)}."
            for label, count in usable.items()
            if count < len(splits.SPLITS)
        ]
        if leak := next((leak for leak in self.leaks if leak.significant), None):
            warnings.append(
                f"{leak.accuracy:.0%} of the photos ({leak.low:.0%} to {leak.high:.0%}) are"
                f" classified correctly by {leak.name}, without a look at them; the largest class"
                f" has {leak.chance:.0%}. A model may learn how the photos were collected"
                " instead of what they show."
            )
        return warnings

    @cached_property
    def _groups(self) -> list[str]:
        return [self.survey.groups[i] for i in self.survey.originals]

    @cached_property
    def _fingerprints(self) -> NDArray[np.uint8]:
        return np.stack([photo.fingerprint for photo in self.photos])

    @property
    def _colours(self) -> NDArray[np.uint8]:
        return self._fingerprints[:, near_duplicates.SIDE**2 :]


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
        f"{photo_set.survey.folder}: {len(photo_set.photos)} of {len(photo_set.survey.files)} files"
        f" can be used: {counts}{more}."
    )
    for warning in photo_set.warnings:
        print(f"Look: {warning}")
    print(f"{page} shows them.")


def as_html(photo_set: PhotoSet) -> str:
    """Return the page."""
    photos, folder = photo_set.photos, photo_set.survey.folder

    def pictures(shown: Sequence[GoodPhoto], caption: Callable[[GoodPhoto], str]) -> list[Picture]:
        return [_picture(folder, photo, caption(photo)) for photo in shown]

    by_area = sorted(photos, key=lambda photo: (photo.width * photo.height, photo.file.path))
    return html.render(
        "dataset_report.html",
        title=f"Photos of {folder}",
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


def _classes(photo_set: PhotoSet) -> Table:
    header = ["class", "photos", "short side, px", "file, KB", "brightness", "formats"]
    rows = []
    for name, places in photo_set.by_class.items():
        formats = Counter(photo_set.photos[i].format for i in places).most_common()
        columns = (photo_set.short_side, photo_set.kilobytes, photo_set.brightness)
        middles = [_middle(column[places]) for column in columns]
        listed = ", ".join(f"{count} {name}" for name, count in formats)
        rows.append([name, str(len(places)), *middles, listed])
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


def _picture(folder: Path, photo: GoodPhoto, caption: str) -> Picture:
    try:
        data = (folder / photo.file.path).read_bytes()
    except OSError:  # it was there a moment ago
        data = None
    return Picture.of(data, photo.file.label, f"{caption}\n{photo.file.path}".lstrip("\n"))
