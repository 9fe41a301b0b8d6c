"""Take a set of photos, one folder per class, from a folder or a .zip file.

Only names and sizes are judged here, so that whatever is written lies inside the target and has
the same names on every system; whether a file is a photo is for the prepare stage to say.
"""

import io
import os
import stat
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZipFile, ZipInfo

from tqdm import tqdm

from meadow.curation import discovery
from meadow.curation.litter import is_litter
from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.pipeline.image import MAX_BYTES, SUFFIXES

MAX_SET = 200_000_000_000  # bytes, unpacked
MAX_RATIO = 100  # unpacked to packed; photos are compressed already and stay near 1
MAX_NAME = 255  # bytes of one name: the limit of ext4, APFS and NTFS
MAX_PATH = 1000  # bytes of a path in the set; the whole of it may have 1024 on macOS
LISTED = 20  # classes or files in the summary
CHUNK = 1 << 20


@dataclass(frozen=True)
class _Entry:
    """A file or folder of the source; `parts` are the names on the way to it."""

    parts: tuple[str, ...]
    open: Callable[[], IO[bytes]] | None  # None: a folder

    @property
    def path(self) -> str:
        return "/".join(self.parts)


def import_set(source: Path, target: Path) -> None:
    """Copy or unpack a set of photos, and print how many files each class has.

    The class folders may also lie under one single folder at the top. Litter, and what lies beside
    the class folders and is no photo, is left behind.

    Args:
        source: a folder or a .zip file. Links in a folder are followed as long as they stay in it.
        target: the set's new folder, written whole or not at all; replaced if there is one.

    Raises:
        MeadowError: no such source, one that overlaps the target, a damaged, encrypted, unsafe or
            oversized archive, a link that leads out, names that collide where case does not
            count, or what `discovery.find` refuses.

    """
    check_apart(source, target)
    try:
        with _opened(source) as (everything, limit):
            entries, beside = _class_folders(everything)
            _check_names(source, entries)
            with atomic.whole(target) as part:
                _write(source, entries, part, limit)
                files = discovery.find(part)
    except PermissionError as error:
        raise MeadowError(
            f"permission denied: {error.filename}. Change it with chmod, then run this again."
        ) from None
    counts = sorted(Counter(file.label for file in files).items())
    print(f"{target}: {len(files)} files in {len(counts)} classes")
    for label, count in counts[:LISTED]:
        print(f"{count:8} {label!r}")
    if len(counts) > LISTED:
        print(f"         and {len(counts) - LISTED} more classes")
    odd = [file.path for file in files if not file.path.lower().endswith(SUFFIXES)]
    _warn(f"files that do not end in {', '.join(SUFFIXES)}; prepare judges them by content", odd)
    _warn("left behind, beside the class folders and no photos", [entry.path for entry in beside])


def _warn(what: str, paths: list[str]) -> None:
    if paths:
        listed = ", ".join(map(repr, paths[:LISTED])) + ", ..." * (len(paths) > LISTED)
        print(f"warning: {what} ({len(paths)}): {listed}", file=sys.stderr)


def check_apart(source: Path, target: Path) -> None:
    """Refuse a source that replacing `target` would destroy, or that contains it.

    Raises:
        MeadowError: one lies in the other, or they are the same.

    """
    real = source.resolve()
    for written in (path.resolve() for path in (target, *atomic.beside(target))):
        if real.is_relative_to(written) or written.is_relative_to(real):
            raise MeadowError(
                f"{source} and {target}, which is to be written, overlap. Take the photos from a"
                f" folder elsewhere; if they lie in {target} already, `dvc add {target}` tracks"
                " them."
            )


@contextmanager
def _opened(source: Path) -> Iterator[tuple[list[_Entry], int]]:
    """Give what is in the source, and how many bytes of it may be written."""
    if source.is_dir():
        root = source.resolve()
        yield list(_in_folder(root, (), (root,))), MAX_SET
    elif not source.exists():
        raise MeadowError(
            f"there is no {source}. `meadow data import` takes a folder with one folder per class,"
            " or a .zip file of it."
        )
    elif not source.is_file():
        raise MeadowError(f"{source} is neither a folder nor a .zip file. Give one of them.")
    else:
        with _archive(source) as archive:
            # A small archive of blank pictures packs well, and is no bomb.
            limit = min(MAX_SET, max(MAX_BYTES, MAX_RATIO * source.stat().st_size))
            yield list(_in_archive(source, archive)), limit


def _in_folder(root: Path, parts: tuple[str, ...], above: tuple[Path, ...]) -> Iterator[_Entry]:
    """Walk a folder; `above` are the real folders on the way, to notice a link that goes round."""
    for path in sorted(root.joinpath(*parts).iterdir()):
        if is_litter(path.name):
            continue
        here = (*parts, path.name)
        real = _followed(path, root) if path.is_symlink() else path
        if real.is_file():
            yield _Entry(here, partial(io.FileIO, real))
        elif not real.is_dir():
            raise MeadowError(f"{str(path)!r} is not a regular file. Move it out of the set.")
        elif real.resolve() in above:
            raise MeadowError(f"the link {str(path)!r} leads round in a circle. Remove it.")
        else:
            yield _Entry(here, None)
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


def _in_archive(source: Path, archive: ZipFile) -> Iterator[_Entry]:
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
        yield _Entry(parts, None if member.is_dir() else partial(archive.open, member))


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


def _class_folders(entries: list[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """Return the class folders, without a single folder around them, and what lies beside them.

    A photo beside them is not left out: `_check_name` refuses it.
    """
    entries, beside = _apart(entries)
    tops = {entry.parts[0] for entry in entries}
    depths = {len(entry.parts) for entry in entries if entry.open}
    if len(tops) != 1 or 1 in depths or max(depths, default=0) < 3:
        return entries, beside
    below, more = _apart([_Entry(e.parts[1:], e.open) for e in entries if e.parts[1:]])
    return below, beside + more


def _apart(entries: list[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """Set apart the files at the top that are no photos: a README, a list of check sums."""
    beside = [
        entry
        for entry in entries
        if entry.open and len(entry.parts) == 1 and not discovery.looks_like_a_photo(entry.path)
    ]
    return [entry for entry in entries if entry not in beside], beside


def _check_names(source: Path, entries: list[_Entry]) -> None:
    """Refuse, before anything is written, what cannot be a set on every system."""
    names: dict[str, tuple[str, bool]] = {}
    for entry in entries:
        _check_name(source, entry)
        for depth in range(1, len(entry.parts) + 1):
            path = "/".join(entry.parts[:depth])
            is_file = entry.open is not None and depth == len(entry.parts)
            key = unicodedata.normalize("NFC", path).casefold()
            twice = is_file and key in names
            if twice or names.setdefault(key, (path, is_file)) != (path, is_file):
                raise MeadowError(
                    f"{source}: {names[key][0]!r} and {path!r} would be one name on macOS and"
                    " Windows. Rename or remove one of them."
                )
    classes = {entry.parts[0] for entry in entries if entry.open}
    discovery.check_classes(source, {entry.parts[0] for entry in entries}, classes)


def _check_name(source: Path, entry: _Entry) -> None:
    if entry.open:
        discovery.check_name(source, entry.path)
    lengths = [len(os.fsencode(name)) for name in entry.parts]
    if max(lengths) > MAX_NAME or sum(lengths) + len(lengths) > MAX_PATH:
        raise MeadowError(
            f"{source}: the name {entry.path[:80]!r}... is too long; {MAX_NAME} bytes are allowed"
            f" for one name and {MAX_PATH} for a path. Shorten it."
        )


def _write(source: Path, entries: list[_Entry], folder: Path, limit: int) -> None:
    """Write the files; sizes are counted on the way, because an archive may lie about them."""
    total = 0
    files = [(entry.path, entry.open) for entry in entries if entry.open is not None]
    for name, opener in tqdm(files, desc="import", unit="photo", disable=None):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with path.open("wb") as file:
            for chunk in _chunks(source, name, opener):
                size += len(chunk)
                total += len(chunk)
                if size > MAX_BYTES:
                    raise MeadowError(
                        f"{source}: {name!r} has more than {MAX_BYTES:,} bytes, too many for a"
                        " photo. Remove it from the set."
                    )
                if total > limit:
                    raise MeadowError(
                        f"{source} unpacks to more than {limit:,} bytes: {MAX_SET:,} in all are"
                        f" allowed, and {MAX_RATIO} times the size of an archive. Remove from it"
                        " what is no photo."
                    )
                file.write(chunk)


def _chunks(source: Path, name: str, opener: Callable[[], IO[bytes]]) -> Iterator[bytes]:
    try:
        with opener() as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except PermissionError:
        raise
    except Exception as error:  # zipfile and its codecs raise a dozen types on damaged bytes
        raise MeadowError(
            f"{source}: {name!r} cannot be read: {error}. Mend or remove it; of an archive,"
            " unpack it yourself and `meadow data import` the folder."
        ) from None
