"""What a person decided about single photos: `data/overrides.csv`, tracked by Git.

A line is `path,decision,label,sha256`: `drop` leaves the photo out, `relabel` gives it another
class. The file stays where it is. SHA-256 is that of the photo on which the person decided, so that
no decision ever falls on another photo that took its name. A decision is on one file: a byte copy
of it elsewhere in the set stays. Nothing writes here by itself: a line comes from an editor or from
`meadow review`.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from meadow.curation.discovery import PhotoFile
from meadow.errors import MeadowError
from meadow.pipeline import atomic

FILE = Path("data/overrides.csv")
HEADER = ["path", "decision", "label", "sha256"]
DECISIONS = ("drop", "relabel")


@dataclass(frozen=True)
class Override:
    """One decision, and the line of the file where it stands; a drop has the label ""."""

    line: int
    path: str
    decision: str
    label: str
    sha256: str


def load() -> list[Override]:
    """Read the decisions; where there is no file, there are none.

    (DVC does not run prepare without it: the file is a dep.)

    Raises:
        MeadowError: it is no such table.

    """
    try:
        text = FILE.read_text("utf-8-sig")  # spreadsheets put a byte order mark before it
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise MeadowError(f"{FILE} is not UTF-8. Save it as CSV in UTF-8.") from None
    lines = csv.reader(io.StringIO(text, newline=""))
    found = []
    if (header := next(lines, [])) != HEADER:
        raise MeadowError(
            f"{FILE}, line 1: {','.join(header)!r} is not the header {','.join(HEADER)!r}."
            f" Write it there, or run `git checkout {FILE}`."
        )
    for fields in lines:
        if len(fields) not in (0, len(HEADER)):
            raise _mistake(
                lines.line_num, f"{len(fields)} fields, not the {len(HEADER)} of the header."
            )
        if fields:
            found.append(Override(lines.line_num, *fields))
    return found


def apply(folder: Path, files: Sequence[PhotoFile]) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Apply the decisions to the files of a set.

    Args:
        folder: the set's folder.
        files: all files in it, by path; their labels are the classes there are.

    Returns:
        The files that stay, each with the label that it has now, and the dropped ones.

    Raises:
        MeadowError: a path, decision or class that is unknown, two decisions on one photo, a photo
            that is not the one decided on, or a decision that decides nothing.

    """
    known = {file.path: file.label for file in files}
    classes = sorted(set(known.values()))
    decided: dict[str, Override] = {}
    for each in load():
        if first := decided.get(each.path):
            wrong = f"line {first.line} decides on {each.path!r} already. Keep one of them."
        else:
            wrong = _wrong(folder, known, classes, each)
        if wrong:
            raise _mistake(each.line, wrong)
        decided[each.path] = each
    stay, dropped = [], []
    for file in files:
        override = decided.get(file.path)
        if override is None:
            stay.append(file)
        elif override.decision == "drop":
            dropped.append(file)
        else:
            stay.append(replace(file, label=override.label))
    return stay, dropped


def decide(folder: Path, files: Sequence[PhotoFile], path: str, decision: str, label: str) -> None:
    """Add a decision to the file, after the checks of `apply`.

    Args:
        folder: the set's folder.
        files: all files in it.
        path: of the photo, in the set's folder or from here, as a shell completes it.
        decision: drop or relabel.
        label: the class of a relabelled photo, "" for a drop.

    Raises:
        MeadowError: see `apply`; then the file stays as it was.

    """
    known = {file.path: file.label for file in files}
    if path not in known and Path(path).is_relative_to(folder):
        path = Path(path).relative_to(folder).as_posix()
    for each in load():
        if each.path == path:
            raise _mistake(each.line, f"{path!r} is decided on already. Edit or remove that line.")
    content = _sha256(folder / path) if path in known else ""
    override = Override(0, path, decision, label, content)
    if wrong := _wrong(folder, known, sorted(set(known.values())), override):
        raise MeadowError(f"{FILE} stays as it was: {wrong}")
    text = FILE.read_text("utf-8-sig") if FILE.exists() else ",".join(HEADER)
    table = io.StringIO(newline="")
    table.write(text.removesuffix("\n") + "\n")
    csv.writer(table, lineterminator="\n").writerow([path, decision, label, content])
    with atomic.whole(FILE) as part:
        part.write_text(table.getvalue(), "utf-8", newline="")


def _wrong(folder: Path, known: dict[str, str], classes: Sequence[str], each: Override) -> str:
    """Return what is wrong with a decision, given the label of each path; or ""."""
    if each.decision not in DECISIONS:
        return f"decision {each.decision!r} is unknown. Known: {', '.join(DECISIONS)}."
    if each.path not in known:
        return _unknown_path(folder, known, each)
    if each.decision == "drop" and each.label:
        return f"a dropped photo has no label, but {each.label!r} is there. Remove it."
    if each.decision == "relabel" and each.label not in classes:
        return (
            f"class {each.label!r} is unknown. Known: {', '.join(classes)}. A new class begins"
            f" with a folder of its own in {folder}."
        )
    if each.decision == "relabel" and each.label == known[each.path]:
        return (
            f"{each.path!r} is of class {each.label!r} by its folder. Name another class, or"
            " remove the decision."
        )
    content = _sha256(folder / each.path)
    if content != each.sha256:
        return (
            f"{each.path!r} is not the photo that was decided on: its SHA-256 is {content!r}, not"
            f" {each.sha256!r}. Look at it; then write the new SHA-256, or remove the decision."
        )
    return ""


def _unknown_path(folder: Path, known: dict[str, str], each: Override) -> str:
    said = f"there is no photo {each.path!r} in {folder}."
    for path in known:
        if Path(path).name == Path(each.path).name and _sha256(folder / path) == each.sha256:
            return f"{said} It lies at {path!r} now: write that, or remove the decision."
    close = get_close_matches(each.path, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{said}{hint} Correct the path, or remove the decision; a new set needs a list anew."


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, and "" where there is none to be read."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mistake(line: int, what: str) -> MeadowError:
    return MeadowError(f"{FILE}, line {line}: {what}")
