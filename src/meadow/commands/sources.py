"""What a photo set is imported from: the files of a folder, or the members of a .zip file."""

import io
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZipFile, ZipInfo

from meadow.curation import discovery
from meadow.curation.litter import is_litter
from meadow.errors import MeadowError

CHUNK = 1 << 20


@dataclass(frozen=True)
class Entry:
    """A file or folder of the source; `parts` are the names on the way to it."""

    parts: tuple[str, ...]
    open: Callable[[], IO[bytes]] | None  # None: a folder

    @property
    def path(self) -> str:
        """Return the names, with forward slashes between them."""
        return "/".join(self.parts)

    def chunks(self, source: Path) -> Iterator[bytes]:
        """Read the file in pieces.

        Raises:
            MeadowError: it is damaged; names `source`.
            PermissionError: it may not be read.

        """
        if self.open is None:
            return
        try:
            with self.open() as file:
                while chunk := file.read(CHUNK):
                    yield chunk
        except PermissionError:
            raise
        except Exception as error:  # zipfile and its codecs raise a dozen types on damaged bytes
            raise MeadowError(
                f"{source}: {self.path!r} cannot be read: {error}. Mend or remove it; of an"
                " archive, unpack it yourself and `meadow data import` the folder."
            ) from None


@contextmanager
def opened(source: Path) -> Iterator[list[Entry]]:
    """Give what is in the source but for litter.

    Raises:
        MeadowError: no such source, a link that leads out, or a damaged, encrypted or unsafe
            archive.

    """
    if source.is_dir():
        root = source.resolve()
        yield list(_in_folder(root, (), (root,)))
    elif not source.exists():
        raise MeadowError(
            f"there is no {source}. `meadow data import` takes a folder with one folder per class,"
            " or a .zip file of it."
        )
    elif not source.is_file():
        raise MeadowError(f"{source} is neither a folder nor a .zip file. Give one of them.")
    else:
        with _archive(source) as archive:
            yield list(_in_archive(source, archive))


def _in_folder(root: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[Entry]:
    """Walk a folder; `above` are the real folders on the way, to notice a link that goes round."""
    for path in sorted(root.joinpath(*parts).iterdir()):
        if is_litter(path.name):
            continue
        here = (*parts, path.name)
        real = _followed(path, root) if path.is_symlink() else path
        if real.is_file():
            yield Entry(here, partial(io.FileIO, real))
        elif not real.is_dir():
            raise MeadowError(f"{str(path)!r} is not a regular file. Move it out of the set.")
        elif real.resolve() in above:
            raise MeadowError(f"the link {str(path)!r} leads round in a circle. Remove it.")
        else:
            yield Entry(here, None)
            yield from _in_folder(root, here, (*above, real.resolve()))


def _followed(link: Path, root: Path) -> Path:
    try:
        real = link.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a link to itself, before Python 3.13
        raise MeadowError(f"the link {str(link)!r} leads nowhere. Remove it.") from None
    if discovery.leads_out(root, link):
        raise MeadowError(
            f"the link {str(link)!r} leads out of {root}, to {str(real)!r}. Only links inside are"
            f" followed: `cp -rL {root} COPY` replaces all by what they lead to; then `meadow data"
            " import COPY`."
        )
    return real


def _archive(source: Path) -> ZipFile:
    try:
        try:
            # The macOS Finder writes UTF-8 without saying so, which is read as code page 437.
            return ZipFile(source, metadata_encoding="utf-8")
        except UnicodeDecodeError:
            return ZipFile(source)
    except PermissionError:
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged bytes
        raise MeadowError(
            f"{source} is no .zip file, or a damaged one: {error}. Pack or fetch it again; of"
            " another kind of archive, unpack it and `meadow data import` the folder."
        ) from None


def _in_archive(source: Path, archive: ZipFile) -> Iterator[Entry]:
    for member in archive.infolist():
        parts = _safe_parts(source, member)
        if not parts or any(is_litter(name) for name in parts):
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            raise MeadowError(
                f"{source}: {member.filename!r} is a link. Pack the files that links lead to:"
                " `zip` does, unless it is run with --symlinks."
            )
        if member.flag_bits & 1:
            raise MeadowError(
                f"{source}: {member.filename!r} is encrypted. Unpack it with its password and"
                " `meadow data import` the folder."
            )
        yield Entry(parts, None if member.is_dir() else partial(archive.open, member))


def _safe_parts(source: Path, member: ZipInfo) -> tuple[str, ...]:
    name = member.orig_filename  # `filename` is cut at a NUL
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name[1:2] == ":" or set("\\\0") & set(name):
        raise MeadowError(
            f"{source}: the name {name!r} could lead out of the folder. Names in an archive must be"
            " relative, with forward slashes and without '..': pack the folder again, for instance"
            " with `zip -r`."
        )
    return path.parts
