"""DVC's objects: each file under the MD5 of its content, in a cache and on the remote.

DVC itself trusts a cached file that is read-only, and takes a folder on the remote for complete
when the list of its files is there. These functions look.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from botocore.exceptions import BotoCoreError
from dvc.config import NoRemoteError
from dvc.exceptions import DvcException
from dvc.logger import set_loggers_level
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo

from meadow.errors import MeadowError
from meadow.pipeline import parallel

FOLDER = "files/md5"
OBJECT = re.compile(r"[0-9a-f]{30}(\.dir)?")  # the rest of the MD5 is the folder's name


def cache() -> Path:
    """Return the cache of the project in the current folder: the folder that holds `files/md5`.

    Raises:
        MeadowError: there is no project.

    """
    try:
        with Repo() as repo:
            return Path(repo.cache.local.path).parents[1]
    except DvcException as error:
        raise MeadowError(f"{error}. Run this in the project's folder.") from None


def names(cache: Path) -> list[str]:
    """Return the objects of a cache, as paths below it; .dir is a list of a folder's files."""
    paths = (cache / FOLDER).glob("??/*")
    return sorted(
        path.relative_to(cache).as_posix() for path in paths if OBJECT.fullmatch(path.name)
    )


def leftovers(cache: Path) -> list[Path]:
    """Return what killed commands of DVC left half-written: it goes on under other names."""
    return sorted((cache / FOLDER).glob("??/.*.tmp"))


def damaged(cache: Path) -> list[Path]:
    """Hash every object of a cache; return those that are not what their name says."""
    paths = [cache / name for name in names(cache)]
    hashes = parallel.ordered(_md5, paths, title="cache")
    return [
        path
        for path, md5 in zip(paths, hashes, strict=True)
        if path.parent.name + path.name.removesuffix(".dir") != md5
    ]


def members(listing: bytes) -> dict[str, str]:
    """Read a .dir object: the object's name of each file in it, by its path below the folder."""
    return {file["relpath"]: name(file["md5"]) for file in json.loads(listing)}


def name(md5: str) -> str:
    """Return the name of the object with this MD5."""
    return f"{FOLDER}/{md5[:2]}/{md5[2:]}"


def whole(name: str, pieces: Iterable[bytes]) -> bool:
    """Tell whether these pieces are the content of the object with this name."""
    md5 = hashlib.md5(usedforsecurity=False)
    for piece in pieces:
        md5.update(piece)
    return name.removesuffix(".dir").endswith(f"{md5.hexdigest()[:2]}/{md5.hexdigest()[2:]}")


def outs(project: Path) -> list[tuple[str, str]]:
    """Return path and object's name of each file and folder that DVC keeps for a project."""
    with Repo(str(project)) as repo:
        return [
            (str(out), name(out.hash_info.value))
            for out in repo.index.outs
            if out.use_cache and out.hash_info
        ]


def push(commits: Sequence[str], there: Set[str]) -> tuple[set[str], int]:
    """Push the run cache, and what the workspace and these commits need, to the default remote.

    `dvc push` takes all commits or none, and reads the pipeline of each several times.

    Args:
        commits: their hashes.
        there: what the remote is known to have.

    Returns:
        The names of all objects that are needed, and how many were pushed.

    Raises:
        MeadowError: some could not be pushed; DVC has said why.

    """
    try:
        with Repo() as repo, repo.lock:
            with set_loggers_level(logging.ERROR):  # not that an old commit has outs without a run
                used = repo.used_objs(revs=list(commits), push=True, skip_failed=True)
            hashes = set().union(*used.values())
            needed = {name(str(info.value)) for info in hashes}
            local = cache()
            listings = [local / path for path in needed if path.endswith(".dir")]
            for listing in filter(Path.exists, listings):
                needed |= {*members(listing.read_bytes()).values()}
            paths = {run.relative_to(local).as_posix(): run for run in local.glob("runs/*/*/*")}
            runs = [(run.parent.name, run.name) for path, run in paths.items() if path not in there]
            # Also outs that DVC leaves to Git: without them a run is of no use to others.
            for of_runs in repo.stage_cache.get_used_objs(runs).values():
                hashes |= {info for info in of_runs if (local / name(str(info.value))).exists()}
            if {name(str(info.value)) for info in hashes} | needed <= there and not runs:
                return needed, 0
            result = repo.cloud.push(hashes)
            if runs and not result.failed:  # last, so that no run is there without its outs
                repo.stage_cache.push(None)
    except (DvcException, BotoCoreError, OSError) as error:
        raise MeadowError(f"`dvc push` failed: {error}") from None
    if result.failed:
        raise MeadowError(f"{len(result.failed)} objects could not be pushed")
    return needed, len(result.transferred)


def fetch(md5s: Iterable[str]) -> list[str]:
    """Get objects that the cache lacks from the default remote, with all files of folders.

    Args:
        md5s: of files, and of folders with `.dir`.

    Returns:
        Those that the cache still lacks: the remote has them not, or there is none.

    Raises:
        MeadowError: the remote does not answer.

    """
    local = cache()
    lacking = {md5 for md5 in md5s if not _complete(local, md5)}
    if lacking:
        try:
            with Repo() as repo, repo.lock, set_loggers_level(logging.CRITICAL):
                repo.cloud.pull({HashInfo("md5", md5) for md5 in lacking})
        except NoRemoteError:
            pass
        except (DvcException, BotoCoreError, OSError) as error:
            raise MeadowError(f"`dvc fetch` failed: {error}") from None
    return sorted(md5 for md5 in lacking if not _complete(local, md5))


def files(cache: Path, md5: str) -> dict[str, Path]:
    """Return where a cache has the files of an object: "" for a file, else paths in the folder."""
    path = cache / name(md5)
    if not md5.endswith(".dir"):
        return {"": path}
    return {inside: cache / of_file for inside, of_file in members(path.read_bytes()).items()}


def _complete(cache: Path, md5: str) -> bool:
    try:
        return all(file.exists() for file in files(cache, md5).values())
    except FileNotFoundError:
        return False


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
