"""What a photo set is imported from: the files of a folder, a .zip file or a bucket."""

import io
import stat
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from zipfile import ZipFile

from meadow.commands import zip_names
from meadow.curation.names import listed
from meadow.errors import MeadowError
from meadow.pipeline import places
from meadow.pipeline.image import MAX_BYTES
from meadow.pipeline.litter import is_litter
from meadow.pipeline.parallel import in_order
from meadow.pipeline.places import Place

if TYPE_CHECKING:
    from meadow.pipeline.bucket import Bucket

CHUNK = 1 << 20
AHEAD = 8  # objects of a bucket that are fetched or wait
LINK = "a link. Pack the files that links lead to: `zip` does, unless it is run with --symlinks."
ENCRYPTED = "encrypted. Unpack it with its password and `meadow data import` the folder."
LEADS_OUT = (
    "could lead out of the folder. Names in an archive must be relative and without '..': pack the"
    " folder again, for instance with `zip -r`."
)


@dataclass(frozen=True)
class Entry:
    """A file or folder of the source; `parts` are the names on the way to it."""

    parts: tuple[str, ...]
    open: Callable[[], IO[bytes]] | None  # None: a folder

    @property
    def path(self) -> str:
        """Return the names, with forward slashes between them."""
        return "/".join(self.parts)

    def chunks(self, source: Place) -> Iterator[bytes]:
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
        except (PermissionError, MeadowError):
            raise
        except Exception as error:  # zipfile and its codecs raise a dozen types on damaged bytes
            raise MeadowError(
                f"{source}: {self.path!r} cannot be read: {error}. Mend or remove it; of an"
                " archive, unpack it yourself and `meadow data import` the folder."
            ) from None


@contextmanager
def opened(source: Place, encoding: str | None) -> Iterator[list[Entry]]:
    """Give what is in the source but for litter.

    Args:
        source: a folder, a .zip file or a bucket.
        encoding: of names in the archive, see `zip_names.decoded`.

    Raises:
        MeadowError: no such source, a link that leads out, or a damaged, encrypted or unsafe
            archive.

    """
    if not isinstance(source, Path):
        paths, _ = places.listing(source)
        yield [Entry(tuple(path.split("/")), partial(_object, source, path)) for path in paths]
    elif source.is_dir():
        root = source.resolve()
        yield list(_in_folder(root, (), (root,)))
    elif not source.exists():
        raise MeadowError(
            f"there is no {source}. `meadow data import` takes a folder with one folder per class,"
            " a .zip file of it, or s3://BUCKET/FOLDER."
        )
    elif not source.is_file():
        raise MeadowError(f"{source} is neither a folder nor a .zip file. Give one of them.")
    else:
        with _archive(source) as archive:
            yield _in_archive(source, archive, encoding)


def ahead(source: Place, entries: Sequence[Entry]) -> Iterator[Entry]:
    """Yield the files; of a bucket some are fetched ahead into memory.

    Raises:
        MeadowError: see `Entry.chunks`.

    """
    if isinstance(source, Path):
        yield from entries
        return

    def fetched(entry: Entry) -> Entry:
        return Entry(entry.parts, partial(io.BytesIO, b"".join(entry.chunks(source))))

    with ThreadPoolExecutor(AHEAD) as pool:
        yield from in_order(pool, fetched, entries, window=AHEAD)


def _object(bucket: "Bucket", path: str) -> IO[bytes]:
    return io.BytesIO(bucket.read(path, MAX_BYTES))


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
    if places.leads_out(root, link):
        raise MeadowError(
            f"the link {str(link)!r} leads out of {root}, to {str(real)!r}. Only links inside are"
            f" followed: `cp -rL {root} COPY` replaces all by what they lead to; then `meadow data"
            " import COPY`."
        )
    return real


def _archive(source: Path) -> ZipFile:
    try:
        return ZipFile(source)
    except PermissionError:
        raise
    except Exception as error:  # zipfile raises a dozen types on damaged bytes
        raise MeadowError(
            f"{source} is no .zip file, or a damaged one: {error}. Pack or fetch it again; of"
            " another kind of archive, unpack it and `meadow data import` the folder."
        ) from None


def _in_archive(source: Path, archive: ZipFile, encoding: str | None) -> list[Entry]:
    members = archive.infolist()
    entries = []
    refused: dict[str, list[str]] = defaultdict(list)
    for member, name in zip(members, zip_names.decoded(source, members, encoding), strict=True):
        path = PurePosixPath(name.replace("\\", "/"))  # PowerShell 5.1 writes backslashes
        if path.is_absolute() or ".." in path.parts or name[1:2] == ":" or "\0" in name:
            refused[LEADS_OUT].append(name)
        elif not path.parts or any(map(is_litter, path.parts)):
            continue
        elif stat.S_ISLNK(member.external_attr >> 16):
            refused[LINK].append(name)
        elif member.flag_bits & 1:
            refused[ENCRYPTED].append(name)
        else:
            is_folder = name.endswith(("/", "\\"))
            entries.append(Entry(path.parts, None if is_folder else partial(archive.open, member)))
    if refused:
        lines = [f"  {listed(paths)}: {fault}" for fault, paths in refused.items()]
        raise MeadowError(f"{source} cannot be unpacked:\n" + "\n".join(lines))
    return entries
