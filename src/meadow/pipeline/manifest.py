"""What prepare hands on: a manifest of the photos, and the pixels that training needs.

`data/prepared/` holds `manifest.csv` (one row a photo, by path), `left_out.csv` (what was not
taken, and why), `classes.json`, and the shards train-*.npy and val-*.npy: pixels in the order of
the manifest. The test photos are not packed: evaluate reads their files.
"""

import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from operator import attrgetter, itemgetter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.shards import Pixels
from meadow.pipeline.splits import Split

FOLDER = Path("data/prepared")
COLUMNS = (  # of manifest.csv, the fields of a `Row`
    "path", "label", "split", "group", "sha256", "pixels", "width", "height", "size",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One photo of the manifest.

    Attributes:
        path: relative to the set's folder.
        label: class name.
        split: train, val or test.
        group: smallest SHA-256 of the photo's group of near-duplicates; see `Survey.groups`.
        sha256: of the file.
        pixels_sha256: of the network's input, the key of its frozen features; column `pixels`.
        width, height: as decoded, pixels.
        size: of the file, bytes.

    """

    path: str
    label: str
    split: Split
    group: str
    sha256: str
    pixels_sha256: str
    width: int
    height: int
    size: int


@dataclass(frozen=True)
class Photos:
    """The photos of one or more splits.

    Attributes:
        rows: their rows of the manifest, length n.
        pixels: uint8, (n, size, size, 3); of one split they are read when they are asked for.
        targets: index of each photo's class, (n,).

    """

    rows: Sequence[Row]
    pixels: Pixels | NDArray[np.uint8]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Prepared:
    """The whole hand-over: class names in order, preprocessing, and the manifest's rows."""

    classes: list[str]
    preprocessing: Preprocessing
    rows: list[Row]

    def split(self, split: Split) -> list[Row]:
        """Return the rows of one split."""
        return [row for row in self.rows if row.split == split]

    def targets(self, rows: Iterable[Row]) -> NDArray[np.int64]:
        """Return the class index of each row."""
        index = {name: i for i, name in enumerate(self.classes)}
        return np.array([index[row.label] for row in rows], dtype=np.int64)

    def photos(self, split: Split) -> Photos:
        """Open the packed pixels of the train or val split."""
        rows = self.split(split)
        return Photos(rows, Pixels(FOLDER, split), self.targets(rows))


def load() -> Prepared:
    """Read the manifest that prepare wrote.

    Raises:
        MeadowError: there is none.

    """
    try:
        about = json.loads((FOLDER / "classes.json").read_text("utf-8"))
        with (FOLDER / "manifest.csv").open(encoding="utf-8", newline="") as file:
            rows = list(_rows(file))
    except FileNotFoundError:
        raise MeadowError(f"{FOLDER} is missing. Run `dvc repro prepare` or `dvc pull`.") from None
    return Prepared(about["classes"], Preprocessing(**about["preprocessing"]), rows)


def _rows(file: Iterable[str]) -> Iterator[Row]:
    """Read rows; the same label, split or hash is one string, as a million rows hold many."""
    lines = csv.reader(file)
    columns = itemgetter(*map(next(lines).index, COLUMNS))
    for line in lines:
        path, label, split, group, sha256, pixels, *numbers = columns(line)
        yield Row(
            path,
            sys.intern(label),
            sys.intern(split),  # type: ignore[arg-type]  # one of its three words
            sha256 if group == sha256 else group,
            sha256,
            pixels,
            *map(int, numbers),
        )


def write_manifest(
    folder: Path, classes: list[str], preprocessing: Preprocessing, rows: Iterable[Row]
) -> None:
    """Write `classes.json` and `manifest.csv`."""
    about = {"classes": classes, "preprocessing": asdict(preprocessing)}
    (folder / "classes.json").write_text(
        json.dumps(about, indent=2, ensure_ascii=False) + "\n", "utf-8"
    )
    values = attrgetter(*(field.name for field in fields(Row)))
    records = (dict(zip(COLUMNS, values(row), strict=True)) for row in rows)
    write_csv(folder / "manifest.csv", COLUMNS, records)


def write_csv(path: Path, header: Sequence[str], records: Iterable[Mapping[str, object]]) -> None:
    """Write a table with a header row; quotes as RFC 4180, but lines end with LF.

    The file is whole or not there; floats have 8 digits after the point.
    """
    with atomic.whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        # The writer quotes the characters of its line terminator alone, and a reader ends a record
        # at a bare CR too.
        lines = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
        table = csv.DictWriter(lines, header, lineterminator="\r\n")
        table.writeheader()
        for record in records:
            table.writerow({key: _rounded(value) for key, value in record.items()})


def _rounded(value: object) -> object:
    return round(float(value), 8) if isinstance(value, float) else value
