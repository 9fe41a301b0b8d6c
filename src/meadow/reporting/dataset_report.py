"""Look at a photo set before anything is learned from it: one page, made from the files alone.

The photos go through the inspection of prepare, so the page leaves out what prepare leaves out.
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
from meadow.curation.survey import survey, two_labels
from meadow.pipeline import atomic, splits
from meadow.pipeline.hashing import hash_fraction
from meadow.pipeline.image import PhotoError, decode
from meadow.reporting import html, metadata_leakage
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
    """What was found in a folder of photos.

    Attributes:
        folder: where.
        found: number of files.
        photos: the good ones, byte copies included, by path.
        groups: content key of each one's group of near-duplicates.
        kept: places of the photos that prepare would keep, by path.
        duplicates: groups of photos that are the same or nearly so; those with two labels first.
        left_out: what prepare would leave out, and why.

    """

    folder: Path
    found: int
    photos: Sequence[GoodPhoto]
    groups: Sequence[str]
    kept: Sequence[int]
    duplicates: Sequence[Sequence[GoodPhoto]]
    left_out: Sequence[BadPhoto]

    @classmethod
    def read(cls) -> "PhotoSet":
        """Inspect the set of params.yaml, with its overrides, as prepare does.

        Raises:
            MeadowError: there is no set, or an override is wrong.

        """
        seen = survey(params.load())
        return cls(
            folder=seen.folder,
            found=len(seen.files),
            photos=seen.photos,
            groups=seen.groups,
            kept=seen.originals,
            duplicates=sorted(seen.duplicates, key=lambda g: (not two_labels(g), -len(g))),
            left_out=sorted(seen.left_out, key=lambda bad: bad.file.path),
        )

    @cached_property
    def by_class(self) -> dict[str, list[int]]:
        """Places of the photos of each class, by name; without byte copies."""
        found = defaultdict(list)
        for i in self.kept:
            found[self.photos[i].file.label].append(i)
        return dict(sorted(found.items()))

    @cached_property
    def brightness(self) -> Floats:
        """Mean of each photo's 4x4 thumbnail over the three colours, 0 to 255, (n,)."""
        colour = self._fingerprints[:, near_duplicates.SIDE**2 :]
        mean: Floats = colour.mean(axis=1, dtype=np.float64)
        return mean

    @cached_property
    def contrast(self) -> Floats:
        """Standard deviation of each photo's 32x32 grey thumbnail, grey levels, (n,)."""
        grey = self._fingerprints[:, : near_duplicates.SIDE**2]
        spread: Floats = grey.std(axis=1, dtype=np.float64)
        return spread

    @cached_property
    def outliers(self) -> list[int]:
        """Places of the photos least like the others of their class, the least first."""
        distance = np.zeros(len(self.photos))
        colour = self._fingerprints[:, near_duplicates.SIDE**2 :].astype(np.float64)
        points = np.column_stack([colour / 255, self.contrast / 64])
        for places in self.by_class.values():
            order = sorted(places, key=lambda i: hash_fraction(self.photos[i].sha256))
            distance[places] = self._to_neighbour(points, places, order[:REFERENCE])
        return sorted(
            self.kept, key=lambda i: (-round(float(distance[i]), 6), self.photos[i].file.path)
        )

    def leaks(self) -> list[Leak]:
        """Judge what the files alone say of the classes; see `metadata_leakage.check`."""
        photos = [self.photos[i] for i in self.kept]
        names = list(self.by_class)
        sizes = np.array([(p.size, p.width, p.height) for p in photos], np.float64).reshape(-1, 3)
        size, width, height = sizes.T
        formats = sorted({p.format for p in photos})
        columns = {
            "file size": size,
            "width": width,
            "height": height,
            "shape (width / height)": width / height,
            "bytes per pixel": size / (width * height),
            "file format": np.array([formats.index(p.format) for p in photos], np.float64),
        }
        targets = np.array([names.index(p.file.label) for p in photos], np.int64)
        return metadata_leakage.check(
            columns, targets, [self.groups[i] for i in self.kept], len(names)
        )

    @cached_property
    def _fingerprints(self) -> NDArray[np.uint8]:
        return np.stack([photo.fingerprint for photo in self.photos])

    def _to_neighbour(self, points: Floats, places: list[int], reference: list[int]) -> Floats:
        """Return the distance to the k-th nearest of the reference that is no near-duplicate."""
        found = np.zeros(len(places))
        theirs = np.array([self.groups[i] for i in reference])
        others = points[reference]
        k = min(NEIGHBOUR, len(reference) - 1)
        with threadpool_limits(1):  # the same sums on every machine
            for at, i in enumerate(places):
                away = np.sqrt(((others - points[i]) ** 2).sum(axis=1))
                away = away[theirs != self.groups[i]]
                if len(away):
                    found[at] = np.partition(away, min(k, len(away)) - 1)[min(k, len(away)) - 1]
        return found


def data_report(page: Path) -> None:
    """Write the page, and print what needs a look.

    Args:
        page: where to.

    Raises:
        MeadowError: there is no set, or an override is wrong.

    """
    found = PhotoSet.read()
    judged = found.leaks() if len(found.by_class) > 1 else []
    with atomic.whole(page) as part:
        part.write_text(as_html(found, judged), "utf-8")
    counts = ", ".join(f"{len(v)} {k!r}" for k, v in list(found.by_class.items())[:CHARTS])
    more = f" and {len(found.by_class) - CHARTS} more" if len(found.by_class) > CHARTS else ""
    print(f"{found.folder}: {len(found.kept)} of {found.found} files can be used: {counts}{more}.")
    for warning in warnings(found, judged):
        print(f"Look: {warning}")
    print(f"{page} shows them.")


def warnings(found: PhotoSet, judged: Sequence[Leak]) -> list[str]:
    """Say what of a set needs a look, the gravest first."""
    said = []
    if conflicts := sum(map(two_labels, found.duplicates)):
        said.append(
            f"near-duplicates with two labels: {conflicts}. prepare fails until each group is in"
            " one class, by its folder or by `meadow review`."
        )
    labels = {photo.file.label for photo in found.photos}
    labels |= {photo.file.label for photo in found.left_out}
    usable = {label: len(found.by_class.get(label, [])) for label in sorted(labels)}
    said += [
        f"class {label!r} has {count} usable photos; prepare needs {len(splits.SPLITS)}."
        for label, count in usable.items()
        if count < len(splits.SPLITS)
    ]
    if leak := next((leak for leak in judged if leak.surely), None):
        said.append(
            f"{leak.accuracy:.0%} of the photos ({leak.low:.0%} to {leak.high:.0%}) get their"
            f" class right by {leak.name}, without a look at them; the largest class is"
            f" {leak.chance:.0%}: more than chance. A model may learn how the photos were"
            " collected instead of what they show."
        )
    return said


def as_html(found: PhotoSet, judged: Sequence[Leak]) -> str:
    """Return the page."""
    body = [html.paragraph(_headline(found), "lead")]
    body += [html.paragraph(warning, "warning") for warning in warnings(found, judged)]
    body += _classes(found) + _leaks(judged) + _left_out(found)
    if found.photos:
        body += _duplicates(found) + _outliers(found) + _ends(found)
        body += _histograms(found) + _sheets(found)
    return html.page(f"Photos of {found.folder}", body)


def _headline(found: PhotoSet) -> str:
    near = len({p.file.path for group in found.duplicates for p in group})
    return (
        f"{found.found} files in {len(found.by_class)} classes: {len(found.kept)} photos can be"
        f" used, {len(found.left_out)} are left out, {near} have a near-duplicate or a copy."
    )


def _classes(found: PhotoSet) -> list[str]:
    header = ["class", "photos", "short side, px", "file, KB", "brightness", "formats"]
    rows = []
    for name, places in found.by_class.items():
        photos = [found.photos[i] for i in places]
        formats = Counter(photo.format for photo in photos).most_common()
        rows.append([
            name, str(len(places)),
            _middle([min(p.width, p.height) for p in photos]),
            _middle([p.size / 1000 for p in photos]),
            _middle(found.brightness[places]),
            ", ".join(f"{count} {name}" for name, count in formats),
        ])  # fmt: skip
    said = "Median, and in brackets what the middle 80 % of the photos lie between."
    table = html.table("Photos of each class", header, rows)
    return ["<h2>Classes</h2>", table, html.paragraph(said, "soft")]


def _middle(values: Sequence[float] | Floats) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


def _leaks(judged: Sequence[Leak]) -> list[str]:
    title = "<h2>What tells the class without a look at the photo</h2>"
    if not judged:
        return [title, html.paragraph("There are too few photos to judge.")]
    rows = [
        [
            leak.name, f"{leak.accuracy:.1%}", f"{leak.low:.1%} to {leak.high:.1%}",
            "more than chance" if leak.surely else "could be chance",
        ]
        for leak in judged
    ]  # fmt: skip
    said = (
        f"Cross-validated accuracy of a classifier that knows only this, with its 95 % interval;"
        f" always the largest class is right for {judged[0].chance:.1%}. It may be harmless, as"
        " when lawns make larger files than flowers; or the classes came from different cameras,"
        " sites or converters."
    )
    header = ["known", "right", "interval", "verdict"]
    return [title, html.table("Leaks", header, rows), html.paragraph(said, "soft")]


def _left_out(found: PhotoSet) -> list[str]:
    title = "<h2>Left out</h2>"
    if not found.left_out:
        return [title, html.paragraph("Nothing: prepare takes every file.")]
    counts = Counter(bad.reason for bad in found.left_out)
    words = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in counts.items())
    rows = [[bad.file.path, bad.reason, bad.detail] for bad in found.left_out[:NAMED]]
    if len(found.left_out) > NAMED:
        words += f"; the first {NAMED} by name"
    table = html.table("Files left out", ["file", "reason", "detail"], rows, "words")
    return [title, html.paragraph(f"prepare leaves these out: {words}."), table]


def _duplicates(found: PhotoSet) -> list[str]:
    body = ["<h2>Near-duplicates</h2>"]
    if not found.duplicates:
        return [*body, html.paragraph("None.")]
    said = "Each group shows one picture, by the program's judgement. prepare keeps it in one split"
    body.append(html.paragraph(f"{said}, and byte copies once."))
    if len(found.duplicates) > GROUPS:
        said = f"{GROUPS} of {len(found.duplicates)} groups are shown; two labels first, then size."
        body.append(html.paragraph(said))
    for number, group in enumerate(found.duplicates[:GROUPS], 1):
        more = f", {COPIES} of them shown" if len(group) > COPIES else ""
        wrong = ": two labels, one of them is wrong" if two_labels(group) else ""
        body.append(f"<h3>Group {number}: {len(group)} photos{more}{wrong}</h3>")
        body.append(_gallery(found, group[:COPIES], _size))
    return body


def _outliers(found: PhotoSet) -> list[str]:
    said = (
        f"The photos farthest from the {NEIGHBOUR}th nearest of their class, by the colours of a"
        " 4x4 thumbnail and by contrast. Content is not looked at: what is odd here may be fine,"
        " and a wrong label need not be odd."
    )
    photos = [found.photos[i] for i in found.outliers[:ODD]]
    gallery = _gallery(found, photos, lambda photo: photo.file.label)
    return ["<h2>Outliers</h2>", html.paragraph(said), gallery]


def _ends(found: PhotoSet) -> list[str]:
    photos = [found.photos[i] for i in found.kept]
    photos.sort(key=lambda photo: (photo.width * photo.height, photo.file.path))
    largest = photos[: -ENDS - 1 : -1]
    return [
        "<h2>Smallest and largest</h2>",
        "<h3>Smallest</h3>", _gallery(found, photos[:ENDS], _size),
        "<h3>Largest</h3>", _gallery(found, largest, _size),
    ]  # fmt: skip


def _histograms(found: PhotoSet) -> list[str]:
    sides = np.array([min(p.width, p.height) for p in found.photos], np.float64)
    sizes = np.array([p.size / 1000 for p in found.photos])
    largest = sorted(found.by_class, key=lambda name: (-len(found.by_class[name]), name))[:CHARTS]
    body = ["<h2>Brightness and size</h2>"]
    if len(largest) < len(found.by_class):
        body.append(html.paragraph(f"The {CHARTS} largest classes."))
    for title, values in (
        ("Brightness, 0 to 255", found.brightness),
        ("Short side, px", sides),
        ("File, KB", sizes),
    ):
        low, high = 0.0, 255.0
        if values is not found.brightness:
            low, high = float(values.min()), float(np.quantile(values, 0.99, method="higher"))
        edges = np.linspace(low, max(high, low + 1), BARS + 1)
        charts = []
        for name in largest:
            clipped = np.minimum(values[found.by_class[name]], edges[-1])
            counts = np.histogram(clipped, edges)[0].tolist()
            more = " and more" if values.max() > edges[-1] else ""
            ends = f"{edges[0]:.0f}", f"{edges[-1]:.0f}{more}"
            words = f"median {_middle(values[found.by_class[name]])}"
            charts.append(html.histogram(name, counts, *ends, words))
        body.append(f'<h3>{title}</h3>\n<div class="charts">{"".join(charts)}</div>')
    return body


def _sheets(found: PhotoSet) -> list[str]:
    names = list(found.by_class)[:CLASSES]
    count = max(4, min(SHEET, SHEETS // len(names)))
    said = "A sample by the hash of the content, so the same for the same photos."
    if len(names) < len(found.by_class):
        said += f" The first {CLASSES} of {len(found.by_class)} classes."
    body = ["<h2>Contact sheets</h2>", html.paragraph(said)]
    for name in names:
        photos = [found.photos[i] for i in found.by_class[name]]
        photos.sort(key=lambda photo: hash_fraction(photo.sha256))
        body.append(f"<h3>{html.text(name)}</h3>")
        body.append(_gallery(found, photos[:count], lambda _: ""))
    return body


def _size(photo: GoodPhoto) -> str:
    return f"{photo.file.label}\n{photo.width} x {photo.height} px, {photo.size / 1000:.0f} KB"


def _gallery(
    found: PhotoSet, photos: Sequence[GoodPhoto], caption: Callable[[GoodPhoto], str]
) -> str:
    shown = []
    for photo in photos:
        path = photo.file.path
        try:
            data = (found.folder / path).read_bytes()
            image = decode(data, at_least=2 * html.SIDE)
        except (OSError, PhotoError):  # it was good a moment ago
            image = None
        picture = html.thumbnail(image, f"photo labelled {photo.file.label}")
        shown.append((picture, f"{caption(photo)}\n{path}".lstrip("\n")))
    return html.photos(shown)
