"""The files of events: which there are, and the lines in them that matter for one request."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHUNK = 1 << 20  # bytes looked through at once: other threads go on in between


@dataclass(frozen=True)
class Line:
    """A line of a file: what it says, and where its bytes are."""

    event: dict[str, Any]
    file: Path
    start: int
    length: int


def files(events: Path) -> list[Path]:
    """List the files that MEADOW_EVENTS names: of each worker, with the rotated ones."""
    name = rf"{re.escape(events.stem)}(-\d+)?{re.escape(events.suffix)}(\.\d+)?"
    with suppress(OSError):
        return sorted(file for file in events.parent.iterdir() if re.fullmatch(name, file.name))
    return []


def lines(events: Path, *marks: str) -> Iterator[Line]:
    """Yield the events whose lines hold one of some texts, such as `"kind": "feedback"`.

    A file that is rotated away in the meantime is passed over, and so is a line that is no event.
    """
    wanted = re.compile(b"|".join(re.escape(mark.encode()) for mark in marks))
    for file in files(events):
        with suppress(FileNotFoundError), file.open("rb") as opened:
            at = 0
            while chunk := opened.read(CHUNK):
                chunk += opened.readline()
                end = 0
                while hit := wanted.search(chunk, end):
                    start, end = (
                        chunk.rfind(b"\n", 0, hit.start()) + 1,
                        chunk.find(b"\n", hit.end()),
                    )
                    if end < 0:
                        break  # it is being written
                    with suppress(ValueError, RecursionError):
                        event = json.loads(chunk[start:end])
                        if isinstance(event, dict):
                            yield Line(event, file, at + start, end - start)
                at += len(chunk)
