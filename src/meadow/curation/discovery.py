"""A set of photos on disk: one folder per class."""

import os
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from meadow.curation.litter import is_litter
from meadow.errors import MeadowError
from meadow.pipeline.image import OTHER_SUFFIXES, SUFFIXES

MAX_CLASSES = 1000
CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # a file in a DVC cache


@dataclass(frozen=True)
class PhotoFile:
    """A file of the set. `path` is relative to the set's folder, with forward slashes."""

    path: str
    label: str


def find(folder: Path) -> list[PhotoFile]:
    """List the files of a set by path; the name of a top folder is the class of all files below.

    Litter is passed over, and what lies beside the class folders and is no photo.

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
    for path in walk(folder):
        if "/" in path or looks_like_a_photo(path):  # not a README, or a list of check sums
            check_name(folder, path)
            files.append(PhotoFile(path, path.partition("/")[0]))
    tops = [path for path in folder.iterdir() if path.is_dir() and not is_litter(path.name)]
    for top in tops:
        if top.is_symlink():
            raise MeadowError(
                f"the class folder {_printable(str(top))} is a link, and DVC keeps nothing that is"
                f" behind one. Run `cp -rL {shlex.quote(str(folder))} COPY`, then `meadow data"
                " import COPY`."
            )
    check_classes(folder, {path.name for path in tops}, {file.label for file in files})
    return files


def leads_out(folder: Path, path: Path) -> bool:
    """Tell whether a path is a link that leads out of the set.

    Links to objects of a DVC cache do not: they are how DVC checks out with `cache.type symlink`.
    """
    real = os.path.realpath(path)
    inside = Path(real).is_relative_to(os.path.realpath(folder))
    return not (inside or CACHED.search(real))


def walk(folder: Path) -> list[str]:
    """List what lies below a folder and is not litter, sorted: relative, with forward slashes.

    A link to a folder is listed like a file, and not walked into.

    Raises:
        MeadowError: a folder cannot be read.

    """
    paths = []
    for directory, below, files in os.walk(folder, onerror=_refuse):
        here = Path(directory)
        links = [name for name in below if (here / name).is_symlink()]
        below[:] = [name for name in below if not is_litter(name) and name not in links]
        names = [name for name in files + links if not is_litter(name)]
        paths += [(here / name).relative_to(folder).as_posix() for name in names]
    return sorted(paths)


def looks_like_a_photo(name: str) -> bool:
    """Tell whether a file has the suffix of a photo, if perhaps of a format that is not read."""
    return Path(name).suffix.lower() in SUFFIXES + OTHER_SUFFIXES


def check_name(source: Path, path: str) -> None:
    """Check where a photo lies, and its name.

    Raises:
        MeadowError: it lies beside the class folders of the source, or its name is not UTF-8.

    """
    if "/" not in path:
        raise MeadowError(
            f"{source}: {_printable(path)} lies beside the class folders. Move it into the folder"
            " of its class, or out of the set."
        )
    try:
        path.encode()
    except UnicodeEncodeError:
        raise MeadowError(
            f"{source}: the name {_printable(path)} is not UTF-8. Rename it."
        ) from None


def check_classes(source: Path, folders: Collection[str], classes: Collection[str]) -> None:
    """Check what is a class.

    Args:
        source: the set, for the messages.
        folders: names of the folders at its top.
        classes: those that hold files.

    Raises:
        MeadowError: a folder is empty, or there are fewer than 2 or more than 1000 classes.

    """
    for name in sorted({*folders} - {*classes}):
        raise MeadowError(
            f"{source}: the class folder {_printable(name)} is empty. Fill or remove it."
        )
    if not 2 <= len(classes) <= MAX_CLASSES:
        only = f" ({_printable(*classes)})" if len(classes) == 1 else ""
        raise MeadowError(
            f"{source} has {len(classes)} classes{only}; 2 to {MAX_CLASSES} are needed, one folder"
            " each: dandelion/..., grass/... Sort the photos into such folders, then `meadow data"
            " import` the folder that holds them."
        )


def _refuse(error: OSError) -> None:
    raise MeadowError(
        f"{str(error.filename)!r} cannot be read: {error.strerror}. Check the disk and the"
        " permissions, then run this again."
    )


def _printable(path: str) -> str:
    """Quote a name from outside, so that newlines and broken bytes cannot garble a terminal."""
    return repr(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
