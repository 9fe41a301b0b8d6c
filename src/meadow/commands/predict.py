"""Classify photos from the command line, by the model in the workspace or by a running service."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from glob import has_magic, iglob
from pathlib import Path
from typing import Any

from tqdm import tqdm

from meadow.errors import MeadowError
from meadow.inference.classifier import FOLDER, Classifier
from meadow.pipeline import places
from meadow.pipeline.image import MAX_BYTES, PhotoError
from meadow.pipeline.parallel import Machines, ordered
from meadow.serving.client import Client, RefusedError

Classify = Callable[[bytes], dict[str, Any]]
AT_ONCE = 8  # requests
WIDEST = 60  # characters of a path in the table


def predict(
    names: Sequence[str], url: str | None = None, *, as_json: bool = False, model: Path = FOLDER
) -> bool:
    """Print one line a photo, in order, as it is known.

    Args:
        names: files, folders (all files below), or patterns such as `photos/**/*.jpg`.
        url: of a service; without, the model in a folder is used.
        as_json: one JSON object a line, as the service answers, with the photo's path in it.
        model: that folder.

    Returns:
        Whether all photos were answered.

    Raises:
        MeadowError: no photo is there, or no model, or no service.

    """
    paths = [path for name in names for path in _files(name)]
    width = min(max(map(len, paths)), WIDEST)
    answered, workers = True, AT_ONCE if url else 0
    with Client(url) if url else nullcontext(_Local(model)) as service:
        work = partial(_record, service.ask)
        for record in ordered(work, paths, Machines(workers), title="predict"):
            answered &= "error" not in record
            tqdm.write(json.dumps(record, ensure_ascii=False) if as_json else _row(record, width))
    return answered


def _files(name: str) -> list[str]:
    path = Path(name)
    if path.is_dir():
        paths = [path / below for below in places.walk(path)]
    elif has_magic(name) and not path.exists():
        matches = sorted(iglob(name, recursive=True))  # noqa: PTH207  # absolute patterns too
        paths = [Path(match) for match in matches]
    else:
        return [name]
    if not (files := [str(path) for path in paths if path.is_file()]):
        raise MeadowError(f"{name!r} is no file, folder or pattern that finds one.")
    return files


class _Local:
    """The model in the workspace, asked as a service is."""

    def __init__(self, model: Path) -> None:
        self.classifier = Classifier.load(model)

    def ask(self, photo: bytes) -> dict[str, Any]:
        answer = self.classifier.predict(photo).to_dict(self.classifier.classes)
        version = self.classifier.version[:12]
        return {**answer, "model": {"name": "photo_classifier", "version": version}}


def _record(classify: Classify, path: str) -> dict[str, Any]:
    """Return the answer to one photo; what is wrong with the photo is an answer too."""
    shown = {"photo": os.fsencode(path).decode("utf-8", "replace")}
    try:
        if Path(path).stat().st_size > MAX_BYTES:
            return {**shown, "error": {"message": f"has more than {MAX_BYTES:,} bytes"}}
        return {**shown, **classify(Path(path).read_bytes())}
    except OSError as error:
        return {**shown, "error": {"message": f"cannot be read: {error.strerror}"}}
    except PhotoError as error:
        return {**shown, "error": {"message": str(error)}}
    except RefusedError as refused:
        return {**shown, "error": refused.error}


def _row(record: dict[str, Any], width: int) -> str:
    """Lay out a line of the table."""
    path = _printable(record["photo"])
    path = path if len(path) <= width else "..." + path[3 - width :]
    if "error" in record:
        return f"{path:<{width}}  refused: {_printable(record['error']['message'])}"
    label, sure = _printable(record["label"]), f"{record['confidence']:.1%}"
    note = ""
    if not record["in_distribution"]:
        note = "looks like nothing that was learned from"
    elif record["prediction_set"] != [record["label"]]:
        note = "not sure: " + (" or ".join(map(_printable, record["prediction_set"])) or "between")
    return f"{path:<{width}}  {sure:>6}  {label}  {note}".rstrip()


def _printable(text: str) -> str:
    """Make sure that a name or message from outside cannot garble the terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
