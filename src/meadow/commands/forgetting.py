"""`meadow data forget`: what the service has kept of one request is removed, and nothing else."""

import json
import os
import re
from contextlib import suppress
from pathlib import Path

from meadow.commands import inbox_folder
from meadow.errors import MeadowError
from meadow.serving import event_files, keeping
from meadow.serving.event_files import Line
from meadow.serving.refusals import REQUEST_ID


def forget(request_id: str, folder: Path | None, events: Path | None) -> None:
    """Remove the photos of a request, what is beside them, their labels, and lines of the events.

    Args:
        request_id: of the answer, its header X-Request-ID.
        folder: of kept photos; None is MEADOW_KEEP_DIR.
        events: file of events, whose rotated files are found; None is MEADOW_EVENTS.

    Raises:
        MeadowError: no request can have that id, no place is named, or nothing is kept of it.

    """
    if not re.fullmatch(REQUEST_ID, request_id):
        raise MeadowError(
            f"{request_id!r} is no request id: up to 64 letters, digits and any of `_.:-`."
        )
    folder, events = folder or _named("MEADOW_KEEP_DIR"), events or _named("MEADOW_EVENTS")
    if not folder and not events:
        raise MeadowError(
            "no place is named. Write `meadow data forget ID --dir DIR --events FILE`: what"
            " MEADOW_KEEP_DIR and MEADOW_EVENTS of the service name."
        )
    photos = _photos(folder, request_id) if folder else 0
    lines = sum(_blank(line, request_id) for line in _lines(events, request_id)) if events else 0
    if not photos and not lines:
        raise MeadowError(f"nothing is kept of request {request_id} in {folder} and {events}.")
    print(f"request {request_id}: {photos} photos and {lines} lines of events are removed")


def _named(name: str) -> Path | None:
    return Path(value) if (value := os.environ.get(name)) else None


def _photos(folder: Path, request_id: str) -> int:
    stems = []
    pattern = re.compile(re.escape(keeping.plain(request_id)) + r"-[0-9a-f]{12}")
    for stem in {file.stem for file in folder.glob("*-*") if pattern.fullmatch(file.stem)}:
        about = folder / f"{stem}.json"
        # One without what belongs beside it was cut off while it was written.
        if not about.exists() or json.loads(about.read_text("utf-8"))["request_id"] == request_id:
            stems.append(stem)
            keeping.remove(folder, stem)
    inbox_folder.unlabel(folder, stems)
    return len(stems)


def _lines(events: Path, request_id: str) -> list[Line]:
    lines = event_files.lines(events, f'"request_id": "{request_id}"')
    return [line for line in lines if line.event.get("request_id") == request_id]


def _blank(line: Line, request_id: str) -> bool:
    """Write spaces over a line, in its place: the service goes on writing to the file."""
    with suppress(FileNotFoundError), line.file.open("r+b") as file:
        file.seek(line.start)
        with suppress(ValueError):  # another file has this name by now
            if json.loads(file.read(line.length)) == line.event:
                file.seek(line.start)
                file.write(b" " * line.length)
                return True
    raise MeadowError(
        f"{line.file} was rotated in the meantime. Run `meadow data forget {request_id}` again."
    )
