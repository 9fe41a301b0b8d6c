"""Where the photos of a set lie: in a local folder, or in a bucket. All readers go through here.

A path in the set is relative, with forward slashes. What a bucket calls its objects is never taken
for a path on this machine.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Union

from meadow.errors import MeadowError
from meadow.pipeline.image import MAX_BYTES, PhotoError
from meadow.pipeline.litter import is_litter

if TYPE_CHECKING:
    from meadow.pipeline.bucket import Bucket

Place = Union[Path, "Bucket"]
CACHED = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # a file in a DVC cache


def place(address: str) -> Place:
    """Return the place with the address of `data.dir`: s3://..., remote://... or a folder.

    Raises:
        MeadowError: see `Bucket.find`.

    """
    if "://" not in address:
        return Path(address)
    from meadow.pipeline.bucket import Bucket  # with botocore and DVC: 0.5 s

    return Bucket.find(address)


def at(where: Place, path: str) -> str:
    """Name a photo of a place, for people."""
    return f"{where}/{path}"


def listing(where: Place) -> tuple[list[str], set[str]]:
    """List the paths of a place's files, sorted and without litter, and the folders at its top.

    Raises:
        MeadowError: it cannot be read.

    """
    if isinstance(where, Path):
        tops = {path.name for path in where.iterdir() if path.is_dir()}
        return walk(where), {name for name in tops if not is_litter(name)}
    paths = []
    for path, _ in where.sizes():
        parts = path.split("/")
        # Names of a file system cannot be these; DVC, and a download, would make a path of them.
        if not path.endswith("/") and {"", ".", ".."} & {*parts}:
            raise MeadowError(
                f"{where} has an object {path!r}: names may have no empty part and no '.' or '..'"
                " between slashes. Rename or remove it, then run this again."
            )
        if not path.endswith("/") and not any(map(is_litter, parts)):  # not the mark of a folder
            paths.append(path)
    if not paths:
        raise MeadowError(
            f"there are no photos at {where}. Correct the address, or copy a set with one folder"
            " per class there."
        )
    paths.sort()
    return paths, {path.partition("/")[0] for path in paths if "/" in path}


def read(where: Place, path: str) -> bytes:
    """Read a photo's file.

    Raises:
        PhotoError: it is larger than any photo, or a link that leads out of the set.
        MeadowError: it cannot be read. That says nothing of the photo, and a set must not depend
            on the state of a disk or a network.

    """
    if not isinstance(where, Path):
        return where.read(path, MAX_BYTES)
    file = where / path
    try:
        if leads_out(where, file):
            raise PhotoError("link", "a link that leads out of the set")
        if not file.is_file():
            raise PhotoError("link", "a link to a folder or to nothing")
        if file.stat().st_size > MAX_BYTES:
            raise PhotoError("too_large", f"more than {MAX_BYTES:,} bytes")
        return file.read_bytes()
    except OSError as error:
        raise MeadowError(
            f"{str(file)!r} cannot be read: {error.strerror or error}. Check the disk and the"
            " permissions, then run this again."
        ) from None


def look(where: Place, path: str) -> bytes | None:
    """Read a photo's file for a page, which shows that it is not to be had."""
    try:
        return read(where, path)
    except (PhotoError, MeadowError):
        return None


def read_as(where: Place, path: str, sha256: str) -> bytes:
    """Read a photo's file again.

    Raises:
        MeadowError: it is not the file that prepare saw, by its SHA-256.

    """
    try:
        data = read(where, path)
    except PhotoError:
        data = b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise MeadowError(f"{at(where, path)} has changed since prepare. Run `dvc repro`.")
    return data


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
        kept = [name for name in files + links if not is_litter(name)]
        paths += [(here / name).relative_to(folder).as_posix() for name in kept]
    return sorted(paths)


def _refuse(error: OSError) -> None:
    raise MeadowError(
        f"{str(error.filename)!r} cannot be read: {error.strerror}. Check the disk and the"
        " permissions, then run this again."
    )
