"""A folder of photos that the service kept, and the labels that people give them: an inbox.

`labels.csv` in it has a line `photo,label` for each photo that was decided on, as `meadow data
import --labels` reads it; a dropped photo has no label.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meadow.commands.sources import Entry
from meadow.curation import discovery
from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.pipeline.places import Place

LABELS = "labels.csv"
HEADER = ["photo", "label"]
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9a-f]{12}\.(jpg|png)")


@dataclass(frozen=True)
class Kept:
    """A photo of the inbox.

    Attributes:
        name: of its file.
        about: what the service wrote beside it; see `keeping.Keeper.offer`.

    """

    name: str
    about: Mapping[str, Any]

    @property
    def random(self) -> bool:
        """Whether it was drawn by chance, so that it is like all photos."""
        return "random" in self.about["kept"]


def photos(folder: Path) -> list[Kept]:
    """List the photos that are whole, in the order in which they came.

    Raises:
        MeadowError: there is no such folder, or what is beside a photo cannot be read.

    """
    if not folder.is_dir():
        raise MeadowError(
            f"there is no folder {folder}. Name the one that MEADOW_KEEP_DIR of the service names,"
            " or a copy of it."
        )
    kept = []
    for file in folder.iterdir():
        if NAME.fullmatch(file.name):
            about = file.with_suffix(".json")
            try:
                kept.append(Kept(file.name, _read(about)))
            except FileNotFoundError:  # it is being written, or has just gone
                continue
            except (ValueError, KeyError, TypeError) as error:
                raise MeadowError(
                    f"{about} is not what the service writes: {error}. Remove it and its photo."
                ) from None
    return sorted(kept, key=lambda photo: (photo.about["time"], photo.name))


def _read(file: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(file.read_text("utf-8"))
    kept = {"request_id": str, "time": str, "kept": list, "label": str, "probabilities": dict}
    for name, kind in kept.items():
        if not isinstance(about[name], kind):
            raise TypeError(f"{name} is {about[name]!r}")
    return about


def labels(folder: Path) -> dict[str, str]:
    """Return the label of each photo that was decided on; "" for a dropped one.

    Raises:
        MeadowError: the file is no such table.

    """
    try:
        text = (folder / LABELS).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        text = ""
    rows = list(csv.reader(io.StringIO(text, newline="")))
    if rows[:1] != [HEADER] or any(len(row) != len(HEADER) for row in rows):
        raise MeadowError(
            f"{folder / LABELS} has not the columns {', '.join(HEADER)}. Mend it, or move it away."
        )
    return {row[0]: row[1] for row in rows[1:]}


def labels_of(source: Place, entries: Sequence[Entry]) -> Path | None:
    """Return the labels of an inbox, where a source is one."""
    names = {entry.path for entry in entries}
    beside = any(NAME.fullmatch(name) and f"{Path(name).stem}.json" in names for name in names)
    return Path(str(source), LABELS) if LABELS in names and beside else None


def placed(source: Place, entries: Sequence[Entry], labelled: Sequence[Entry]) -> list[Entry]:
    """Lay labelled photos that were not drawn by chance where they are trained on alone.

    Args:
        source: for the messages.
        entries: all that is in it.
        labelled: photos of it, each below its label.

    Raises:
        MeadowError: what is beside a photo cannot be read.

    """
    abouts = {entry.parts: entry for entry in entries}
    photos = []
    for photo in labelled:
        label, *folders, name = photo.parts
        about = abouts.get((*folders, f"{Path(name).stem}.json")) if NAME.fullmatch(name) else None
        if about:
            try:
                kept = json.loads(b"".join(about.chunks(source)))["kept"]
            except (ValueError, KeyError, TypeError) as error:
                raise MeadowError(
                    f"{source}: {about.path!r} is not what the service writes: {error}. Remove it"
                    " and its photo."
                ) from None
            if "random" not in kept:
                photo = Entry((label, discovery.TRAIN_ONLY, *folders, name), photo.open)
        photos.append(photo)
    return photos


def write(folder: Path, decided: Mapping[str, str]) -> None:
    """Write the labels; the file is the whole old or new one at all times."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([HEADER, *decided.items()])
    with atomic.whole(folder / LABELS) as part:
        part.write_text(table.getvalue(), "utf-8", newline="")


def unlabel(folder: Path, stems: Iterable[str]) -> None:
    """Forget the labels of some photos, given the names of their files without suffix."""
    gone, decided = {*stems}, labels(folder)
    left = {name: label for name, label in decided.items() if Path(name).stem not in gone}
    if left != decided:
        write(folder, left)
