"""Labels from a table beside the photos, as data sets of Kaggle and Hugging Face have them."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from meadow.commands.sources import Entry
from meadow.curation import discovery
from meadow.errors import MeadowError
from meadow.pipeline.litter import is_litter
from meadow.pipeline.places import Place

LABEL = ("label", "class", "class_name", "category", "breed", "species", "target")  # usual names
Index = Mapping[str, Sequence[str]]  # from the end of a path to the photos that it fits
Record = dict[str, Any]


def labelled(
    source: Place, entries: Sequence[Entry], file: Path, columns: Sequence[str] | None
) -> tuple[list[Entry], list[Entry]]:
    """Sort photos into class folders by a table of labels.

    A record names a photo by its path, or by the end of it, with or without the suffix.

    Args:
        source: a folder or a .zip file, for the messages.
        entries: what is in it; the table may be one of them.
        file: CSV (also with semicolons or tabs), JSON (a list of objects, or one object from photo
            to label) or JSON Lines.
        columns: those of the photo and of its label; None: they are found.

    Returns:
        The photos below their labels, and those that have none.

    Raises:
        MeadowError: there is no such file, it is none of these, its columns are not found, a name
            fits several photos, or a photo has two labels.

    """
    photos = [entry for entry in entries if discovery.looks_like_a_photo(entry.path)]
    index: dict[str, list[str]] = defaultdict(list)
    for entry in photos:
        for tail in _tails(entry.path):
            index[tail].append(entry.path)
            index[tail.removesuffix(PurePosixPath(tail).suffix)].append(entry.path)
    texts = _texts(source, entries, file)
    records = [record for text in texts for record in _records(file, text, index)]
    photo_column, label_column = columns or _found(file, records, index)
    labels: dict[str, str] = {}
    for record in records:
        if missing := {photo_column, label_column} - record.keys():
            raise _columns_wanted(file, records, f"a record lacks {', '.join(sorted(missing))}")
        name, label = (str(record[column]).strip() for column in (photo_column, label_column))
        if "/" in label or is_litter(label):
            raise MeadowError(
                f"{file}: the label {label!r} cannot be the name of a class, as it has a slash or"
                " the name of a hidden file. Change it."
            )
        fitting = _fitting(index, name)
        if len(fitting) > 1:
            raise MeadowError(
                f"{file}: {name!r} could be {fitting[0]!r} or {fitting[1]!r}. Write more of the"
                " path in the file, or import one of their folders."
            )
        if fitting and label and labels.setdefault(fitting[0], label) != label:
            raise MeadowError(
                f"{file} gives {name!r} the labels {labels[fitting[0]]!r} and {label!r}. Keep one:"
                " a photo has one label."
            )
    print(
        f"{file}: {len(labels)} of {len(photos)} photos have a label, in the column"
        f" {label_column!r} of {len(records)} records, by their names in {photo_column!r}"
    )
    placed = [
        Entry((labels[entry.path], *entry.parts), entry.open)
        for entry in photos
        if entry.path in labels
    ]
    return placed, [entry for entry in photos if entry.path not in labels]


def _tails(path: str) -> list[str]:
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _fitting(index: Index, name: str) -> Sequence[str]:
    """Return the photos that fit most of a path."""
    return next((index[tail] for tail in _tails(name) if tail in index), ())


def _texts(source: Place, entries: Sequence[Entry], file: Path) -> list[str]:
    """Read the table, or all of its name in the source: Roboflow has one in each split."""
    if file.is_file():
        tables = [file.read_bytes()]
    else:
        inside = [entry for entry in entries if entry.open and entry.parts[-1] == file.name]
        tables = [b"".join(entry.chunks(source)) for entry in inside]
    if not tables:
        raise MeadowError(
            f"there is no file {file}, and none of its name in {source}. Give the path of the file"
            " with the labels."
        )
    try:
        return [table.decode("utf-8-sig") for table in tables]
    except UnicodeDecodeError:
        raise MeadowError(f"{file} is not UTF-8. Save it as UTF-8, then run this again.") from None


def _records(file: Path, text: str, index: Index) -> list[Record]:
    """Read a table; without a header its columns are 1, 2, ..."""
    kind = file.suffix.lower()
    try:
        if kind not in (".json", ".jsonl"):
            delimiter = max(",;\t", key=text.partition("\n")[0].count)
            lines = io.StringIO(text, newline="")
            rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
            header = rows.pop(0) if rows else []
            if any(_fitting(index, value) for value in header):
                rows.insert(0, header)
                header = [str(number) for number in range(1, len(header) + 1)]
            return [dict(zip(header, row, strict=False)) for row in rows]
        if kind == ".json":
            content = json.loads(text)
        else:
            content = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (csv.Error, ValueError) as error:
        raise MeadowError(f"{file} cannot be read: {error}. Mend the file.") from None
    if isinstance(content, dict):
        content = [{"photo": photo, "label": label} for photo, label in content.items()]
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise MeadowError(
            f"{file} holds neither a list of objects nor one object from photo to label. Write it"
            ' as {"1.jpg": "dandelion", ...}.'
        )
    return content


def _found(file: Path, records: Sequence[Record], index: Index) -> tuple[str, str]:
    """Find the column whose values name photos, and the one that is called as labels are.

    Where each class has a column of 0 and 1 the records get one, `label`.
    """
    columns = list(records[0]) if records else []
    hits = {
        column: sum(bool(_fitting(index, str(record.get(column)))) for record in records)
        for column in columns
    }
    photo = max(columns, key=lambda column: hits[column], default="")
    if not hits.get(photo):
        raise _columns_wanted(file, records, "no column names the photos of the source")
    others = [column for column in columns if column != photo]
    if len(others) > 1 and all(_marks(record, others) for record in records):
        for record in records:
            label, *more = _marks(record, others)
            if more:
                raise MeadowError(
                    f"{file} gives {record[photo]!r} the labels {label!r} and {more[0]!r}. Keep"
                    " one: a photo has one label."
                )
            record["label"] = label
        return photo, "label"
    named = [column for column in others if column.strip().lower() in LABEL]
    candidates = named if len(named) == 1 else others
    if len(candidates) != 1:
        raise _columns_wanted(file, records, "several columns could be the label")
    return photo, candidates[0]


def _marks(record: Record, classes: Sequence[str]) -> list[str]:
    """Return the classes whose columns have a 1, if all others have a 0."""
    marks = [str(record.get(name)).strip().removesuffix(".0") for name in classes]
    known = {*marks} <= {"0", "1"}
    return [name for name, mark in zip(classes, marks, strict=True) if known and mark == "1"]


def _columns_wanted(file: Path, records: Sequence[Record], fault: str) -> MeadowError:
    columns = ", ".join(map(repr, records[0])) if records else "none"
    return MeadowError(
        f"{file}: {fault}. Its columns are {columns}: name two, `--columns PHOTO LABEL`."
    )
