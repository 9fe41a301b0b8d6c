"""The real set: 400 web photos, dandelion against grass, fetched from where they were published.

They are thumbnails of a web search, without a licence: never committed, never redistributed. The
list of their SHA-256 hashes is committed instead, and nothing that differs from it is taken.
"""

import shutil
from importlib import resources
from pathlib import Path

import pooch
import requests

from meadow.commands.importing import check_apart
from meadow.errors import MeadowError
from meadow.pipeline import atomic, cache, parallel
from meadow.pipeline.parallel import Machines

COMMIT = "82fc896ae71a910ca93bdaccd492630bae3ed1c3"
URL = f"https://raw.githubusercontent.com/btphan95/greenr-airflow/{COMMIT}/data"
CONNECTIONS = 8
RETRIES = 4  # of each photo, after 1, 2, 3 and 4 seconds
TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 1_000_000  # of one photo; the largest listed one has 20,450
NAMES_SHOWN = 10

_OTHER_WAYS = (
    "`meadow data dandelion-grass --from DIR` takes a copy at hand, and `meadow data demo` needs no"
    " network."
)


def fetch(target: Path, source: Path | None) -> None:
    """Write the set into a folder, from the network or from a copy at hand.

    A download that was cut goes on where it stopped: what was fetched is kept in the cache.

    Args:
        target: the set's new folder, written whole or not at all; replaced if there is one.
        source: a folder that holds dandelion/ and grass/, or both below data/; None downloads.

    Raises:
        MeadowError: no network, a server that does not deliver, or photos that are missing or not
            the listed ones.

    """
    hashes = listed()
    if source is None:
        folder = cache.folder("downloads") / COMMIT
        _download(folder, hashes)
    else:
        check_apart(source, target)
        folder = source / "data" if (source / "data").is_dir() else source
    with atomic.whole(target) as part:
        states = {name: _take(folder / name, part / name, hashes[name]) for name in hashes}
        faults = [f"{name} is {state}" for name, state in states.items() if state]
        if faults:
            more = f" and {len(faults) - NAMES_SHOWN} more" if len(faults) > NAMES_SHOWN else ""
            raise MeadowError(
                f"{folder} is not the set of {len(hashes)} photos:"
                f" {', '.join(faults[:NAMES_SHOWN])}{more}. Give another copy, or download the set:"
                " `meadow data dandelion-grass`."
            )


def listed() -> dict[str, str]:
    """Return the SHA-256 hash of each photo, by its path such as `dandelion/00000000.jpg`."""
    text = resources.files("meadow.commands").joinpath("dandelion_grass.sha256").read_text("utf-8")
    return {path: sha256 for sha256, path in map(str.split, text.splitlines())}


def _take(path: Path, copy: Path, sha256: str) -> str:
    """Copy a photo; return what is wrong with it, nothing if it is the listed one."""
    if not path.is_file():
        return "missing"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)
    return "" if pooch.file_hash(str(copy)) == sha256 else "not the listed one"


def _download(folder: Path, hashes: dict[str, str]) -> None:
    """Fetch into a folder all photos that are not there yet; pooch writes each whole or not."""
    pooch.get_logger().setLevel("WARNING")
    for name in hashes:  # here, as two threads of pooch would trip over each other
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    photos = pooch.create(folder, f"{URL}/", registry=hashes, retry_if_failed=RETRIES)

    def fetch_one(name: str) -> None:
        try:
            photos.fetch(name, downloader=_get)
        except requests.RequestException as error:
            raise MeadowError(
                f"{URL}/{name}: {error} (tried {RETRIES + 1} times). What was fetched is kept: run"
                f" `meadow data dandelion-grass` again to go on. {_OTHER_WAYS}"
            ) from None
        except ValueError:
            raise MeadowError(
                f"{URL}/{name} is not the listed photo: its SHA-256 is not {hashes[name]}."
                f" Something on the way changes files. {_OTHER_WAYS}"
            ) from None

    for _ in parallel.ordered(fetch_one, list(hashes), Machines(CONNECTIONS), title="download"):
        pass


def _get(url: str, file: str, _pooch: object) -> None:
    """Write what a server answers into a file, and not much more than a photo may have."""
    with requests.get(url, timeout=TIMEOUT, stream=True) as answer:
        if answer.status_code in (404, 410):  # final, so not one of the errors that pooch retries
            raise MeadowError(
                f"{url}: the server answers {answer.status_code}; the photos may have been taken"
                f" down. {_OTHER_WAYS}"
            )
        answer.raise_for_status()
        with Path(file).open("wb") as out:
            for chunk in answer.iter_content(2**16):
                out.write(chunk)
                if out.tell() > MAX_BYTES:  # its hash is wrong already
                    break
