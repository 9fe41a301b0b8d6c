"""DVC's objects: each file under the MD5 of its content, in a cache and on the remote.

DVC itself trusts a cached file that is read-only, and takes a folder on the remote for complete
when the list of its files is there. These functions look.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from dvc.repo import Repo

from meadow.pipeline import parallel

FOLDER = "files/md5"


def names(cache: Path) -> list[str]:
    """Return the objects of a cache, as paths below it, sorted; .dir is a list of a folder's files.

    Args:
        cache: the folder that holds `files/md5`.

    """
    here = cache / FOLDER
    return sorted(f"{FOLDER}/{path.relative_to(here).as_posix()}" for path in here.glob("??/*"))


def damaged(cache: Path) -> list[Path]:
    """Hash every object of a cache; return those that are not what their name says."""
    paths = [cache / name for name in names(cache)]
    hashes = parallel.ordered(_md5, paths, workers=0, title="cache")
    return [path for path, md5 in zip(paths, hashes, strict=True) if md5 != _oid(path)]


def members(listing: bytes) -> dict[str, str]:
    """Read a .dir object: the object's name of each file in it, by its path below the folder."""
    return {each["relpath"]: name(each["md5"]) for each in json.loads(listing)}


def name(md5: str) -> str:
    """Return the name of the object with this MD5."""
    return f"{FOLDER}/{md5[:2]}/{md5[2:]}"


def whole(name: str, content: bytes) -> bool:
    """Tell whether this is the content of the object with this name."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return name.removesuffix(".dir").endswith(f"{md5[:2]}/{md5[2:]}")


def needed(project: Path, read: Callable[[str], bytes]) -> Iterator[tuple[str, str]]:
    """Yield the path and the object's name of each file that DVC keeps for a project.

    Args:
        project: its folder.
        read: gives the content of an object by its name, for the lists of folders.

    """
    with Repo(str(project)) as repo:
        for out in repo.index.outs:
            if not out.use_cache or not out.hash_info:
                continue
            top, listing = str(out), name(out.hash_info.value)
            yield top, listing
            if out.hash_info.isdir and whole(listing, content := read(listing)):
                yield from ((f"{top}/{path}", each) for path, each in members(content).items())


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _oid(path: Path) -> str:
    return path.parent.name + path.name.removesuffix(".dir")
