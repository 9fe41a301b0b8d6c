"""A set of photos on disk: one folder per class."""

import os
from dataclasses import dataclass
from pathlib import Path

from meadow.errors import MeadowError
from meadow.pipeline.image import OTHER_SUFFIXES, SUFFIXES

MAX_CLASSES = 1000
LITTER = {"thumbs.db", "desktop.ini"}  # and every name that starts with a dot


@dataclass(frozen=True)
class PhotoFile:
    """A file of the set. `path` is relative to the set's folder, with forward slashes."""

    path: str
    label: str


def find(folder: Path) -> list[PhotoFile]:
    """List the files of a set by path; the name of a top folder is the class of all files below.

    Hidden files and the litter of operating systems are passed over.

    Raises:
        MeadowError: no folder, fewer than 2 or more than 1000 classes, an empty class, a photo
            that lies beside the class folders, or a name that is not UTF-8.

    """
    if not folder.is_dir():
        raise MeadowError(
            f"there is no folder {folder}. `meadow data demo` draws a set, `meadow data import DIR`"
            " takes yours, `dvc pull` fetches the one that was committed."
        )
    files = []
    for directory, below, names in os.walk(folder):
        below[:] = sorted(name for name in below if not name.startswith("."))
        relative = Path(directory).relative_to(folder)
        # A link to a folder is not walked into: it is listed, and refused with the bad photos.
        links = [name for name in below if Path(directory, name).is_symlink()]
        for name in sorted(names) + links:
            if name.startswith(".") or name.lower() in LITTER:
                continue
            path = (relative / name).as_posix()
            if not relative.parts:
                if Path(name).suffix.lower() not in SUFFIXES + OTHER_SUFFIXES:
                    continue  # a README, a list of check sums
                raise MeadowError(
                    f"{_shown(path)} lies beside the class folders of {folder}. Move it into the"
                    " folder of its class, or out of the set."
                )
            try:
                path.encode()
            except UnicodeEncodeError:
                raise MeadowError(f"the name {_shown(path)} is not UTF-8. Rename it.") from None
            files.append(PhotoFile(path, relative.parts[0]))
    _check_classes(folder, {file.label for file in files})
    return sorted(files, key=lambda file: file.path)


def _check_classes(folder: Path, labels: set[str]) -> None:
    for each in sorted(folder.iterdir()):
        if each.is_dir() and not each.name.startswith(".") and each.name not in labels:
            raise MeadowError(f"the class folder {_shown(str(each))} is empty. Fill or remove it.")
    if not 2 <= len(labels) <= MAX_CLASSES:
        found = f" ({_shown(next(iter(labels)))})" if len(labels) == 1 else ""
        raise MeadowError(
            f"{folder} has {len(labels)} classes{found}; 2 to {MAX_CLASSES} are needed,"
            " one folder each: data/raw/dandelion/..., data/raw/grass/..."
        )


def _shown(path: str) -> str:
    """Quote a name from outside, so that newlines and broken bytes cannot garble a terminal."""
    return repr(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
