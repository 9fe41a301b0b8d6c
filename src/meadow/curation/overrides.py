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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from meadow.curation.discovery import PhotoFile
from meadow.errors import MeadowError, did_you_mean
from meadow.pipeline import atomic, places
from meadow.pipeline.places import Place

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
    if (header := next(lines, [])) != HEADER:
        raise MeadowError(
            f"{FILE}, line 1: {','.join(header)!r} is not the header {','.join(HEADER)!r}."
            f" Write it there, or run `git checkout {FILE}`."
        )
    decisions = []
    for fields in lines:
        if len(fields) not in (0, len(HEADER)):
            problem = f"{len(fields)} fields, not the {len(HEADER)} of the header."
            raise _mistake(lines.line_num, problem)
        if fields:
            decisions.append(Override(lines.line_num, *fields))
    return decisions


def apply(where: Place, files: Sequence[PhotoFile]) -> tuple[list[PhotoFile], list[PhotoFile]]:
    """Apply the decisions to the files of a set.

    Args:
        where: the set's folder or bucket.
        files: all files in it, by path; their labels are the classes there are.

    Returns:
        The files that stay, each with the label that it has now, and the dropped ones.

    Raises:
        MeadowError: a path, decision or class that is unknown, two decisions on one photo, a photo
            that is not the one decided on, or a decision that decides nothing.

    """
    labels = {file.path: file.label for file in files}
    decided: dict[str, Override] = {}
    for override in load():
        if first := decided.get(override.path):
            problem = f"line {first.line} decides on {override.path!r} already. Keep one of them."
        else:
            problem = _problem(where, labels, override)
        if problem:
            raise _mistake(override.line, problem)
        decided[override.path] = override
    dropped = {path for path, override in decided.items() if override.decision == "drop"}
    stay = [
        replace(file, label=decided[file.path].label) if file.path in decided else file
        for file in files
        if file.path not in dropped
    ]
    return stay, [file for file in files if file.path in dropped]


def decide(
    where: Place, files: Sequence[PhotoFile], paths: Iterable[str], decision: str, label: str
) -> None:
    """Add a decision on each of some photos to the file, after the checks of `apply`.

    Args:
        where: the set's folder or bucket.
        files: all files in it.
        paths: of the photos, in the set's folder or from here, as a shell completes them.
        decision: drop or relabel.
        label: the class of relabelled photos, "" for a drop.

    Raises:
        MeadowError: see `apply`; it names what is wrong with each photo, and the file stays as it
            was.

    """
    labels = {file.path: file.label for file in files}
    lines = {override.path: override.line for override in load()}
    decided: dict[str, str] = {}
    problems = []
    for path in paths:
        if path not in labels:
            path = path.removeprefix(f"{where}/")
        sha256 = decided[path] = _sha256(where, path) if path in labels else ""
        if path in lines:
            problems.append(
                f"line {lines[path]}: {path!r} is decided on already. Edit or remove that line."
            )
        elif problem := _problem(where, labels, Override(0, path, decision, label, sha256)):
            problems.append(problem)
    if problems:
        raise MeadowError("\n".join([f"{FILE} stays as it was:", *problems]))
    text = FILE.read_text("utf-8-sig") if FILE.exists() else ",".join(HEADER)
    table = io.StringIO(newline="")
    table.write(text.removesuffix("\n") + "\n")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([path, decision, label, sha256] for path, sha256 in decided.items())
    with atomic.whole(FILE) as part:
        part.write_text(table.getvalue(), "utf-8", newline="")


def listed(file: Path) -> list[str]:
    """Read the photos that a file lists: one path a line, or the column `path` of a CSV.

    So left_out.csv and review.csv can be cut down to the lines that one decision is on.

    Raises:
        MeadowError: there is no such file, it is not UTF-8, or lists none.

    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise MeadowError(f"{file} cannot be read as UTF-8 text: {error}") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    if "path" in (table.fieldnames or []):
        paths = [record["path"] for record in table]
    else:
        paths = [line for line in text.splitlines() if line]
    if not paths:
        raise MeadowError(f"{file} lists no photo. Write one path a line.")
    return paths


def _problem(where: Place, labels: Mapping[str, str], override: Override) -> str:
    """Return what is wrong with a decision, given the label of each path; or ""."""
    path, decision, label = override.path, override.decision, override.label
    classes = sorted(set(labels.values()))
    if decision not in DECISIONS:
        return f"decision {decision!r} is unknown. Known: {', '.join(DECISIONS)}."
    if path not in labels:
        return _unknown_path(where, labels, override)
    if decision == "drop" and label:
        return f"a dropped photo has no label, but {label!r} is there. Remove it."
    if decision == "relabel" and label not in classes:
        return (
            f"class {label!r} is unknown. Known: {', '.join(classes)}. A new class begins with a"
            f" folder of its own in {where}."
        )
    if decision == "relabel" and label == labels[path]:
        return (
            f"{path!r} is of class {label!r} by its folder. Name another class, or remove the"
            " decision."
        )
    sha256 = _sha256(where, path)
    if sha256 != override.sha256:
        return (
            f"{path!r} is not the photo that was decided on: its SHA-256 is {sha256!r}, not"
            f" {override.sha256!r}. Look at it; then write the new SHA-256, or remove the decision."
        )
    return ""


def _unknown_path(where: Place, labels: Mapping[str, str], override: Override) -> str:
    problem = f"there is no photo {override.path!r} in {where}."
    name = Path(override.path).name
    for path in labels:
        if Path(path).name == name and _sha256(where, path) == override.sha256:
            return f"{problem} It lies at {path!r} now: write that, or remove the decision."
    hint = did_you_mean(override.path, {path: repr(path) for path in labels})
    return f"{problem}{hint} Correct the path, or remove the decision; a new set needs a new list."


def _sha256(where: Place, path: str) -> str:
    """Return the SHA-256 of a file, and "" where there is none to be read."""
    if not isinstance(where, Path):
        return hashlib.sha256(places.read(where, path)).hexdigest()
    if not (where / path).is_file():
        return ""
    with (where / path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mistake(line: int, problem: str) -> MeadowError:
    return MeadowError(f"{FILE}, line {line}: {problem}")
