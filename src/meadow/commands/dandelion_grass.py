"""The real set: 400 web photos, dandelion against grass, fetched from where they were published.

They are thumbnails of a web search, without a licence: never committed, never redistributed. The
list of their SHA-256 hashes is committed instead, and nothing that differs from it is taken.
"""

import hashlib
import random
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from email.utils import parsedate_to_datetime
from importlib import resources
from pathlib import Path
from threading import Event

import httpx
from tqdm import tqdm

from meadow.commands.importing import check_apart
from meadow.errors import MeadowError
from meadow.pipeline import atomic, cache

COMMIT = "82fc896ae71a910ca93bdaccd492630bae3ed1c3"
URL = f"https://raw.githubusercontent.com/btphan95/greenr-airflow/{COMMIT}/data"
AT_ONCE = 8  # requests
TRIES = 5  # for each photo
FIRST_WAIT = 0.5  # seconds, up to half more by chance, and each time twice as long
MAX_WAIT = 60.0  # seconds; a server that asks for more is left alone
TIMEOUT = 30.0  # seconds without a byte
MAX_BYTES = 1_000_000  # of one photo; the largest listed one has 20,450

_OTHERWISE = (
    "`meadow data dandelion-grass --from DIR` takes a copy at hand, and `meadow data demo` needs no"
    " network."
)
_AGAIN = f"What was fetched is kept: run `meadow data dandelion-grass` again to go on. {_OTHERWISE}"


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
        folder = _at_hand(source, hashes)
    _place(folder, target, hashes)


def listed() -> dict[str, str]:
    """Return the SHA-256 hash of each photo, by its path such as `dandelion/00000000.jpg`."""
    text = resources.files("meadow.commands").joinpath("dandelion_grass.sha256").read_text("utf-8")
    return {path: sha256 for sha256, path in map(str.split, text.splitlines())}


def _at_hand(source: Path, hashes: dict[str, str]) -> Path:
    labels = sorted({path.split("/")[0] for path in hashes})
    for folder in (source, source / "data"):
        if all((folder / label).is_dir() for label in labels):
            return folder
    raise MeadowError(
        f"{source} holds neither the folders {' and '.join(labels)} nor a folder data with them."
        " Give the one that does: `meadow data dandelion-grass --from DIR`."
    )


def _place(folder: Path, target: Path, hashes: dict[str, str]) -> None:
    missing, wrong = [], []
    with atomic.whole(target) as part:
        for name, sha256 in hashes.items():
            data = _read(folder / name)
            if data is None:
                missing.append(name)
            elif _sha256(data) != sha256:
                wrong.append(name)
            else:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(data)
        if missing or wrong:
            raise MeadowError(
                f"{folder} is not the set of {len(hashes)} photos:"
                f"{_named('missing or unreadable', missing)}{_named('not as listed', wrong)}"
                " Mend it, or download the set: `meadow data dandelion-grass`."
            )


def _named(what: str, names: list[str]) -> str:
    if not names:
        return ""
    return f" {len(names)} {what} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})."


def _read(path: Path) -> bytes | None:
    """Read a photo, and of anything larger so much that its hash is wrong; None: no such file."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except OSError:
        pass
    return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _download(folder: Path, hashes: dict[str, str]) -> None:
    """Fetch into the working folder all photos that are not there yet."""
    lacking = {
        name: sha256
        for name, sha256 in hashes.items()
        if (data := _read(folder / name)) is None or _sha256(data) != sha256
    }
    if not lacking:
        return
    with (
        httpx.Client(
            timeout=TIMEOUT,
            follow_redirects=True,
            # Unpacked, a small answer could be a large one.
            headers={"User-Agent": "meadow", "Accept-Encoding": "identity"},
        ) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
        tqdm(
            total=len(hashes),
            initial=len(hashes) - len(lacking),
            desc="download",
            unit="photo",
            disable=None,
        ) as bar,
    ):
        server = _Server(client)
        photos = [
            pool.submit(server.save, name, sha256, folder / name)
            for name, sha256 in lacking.items()
        ]
        try:
            for photo in as_completed(photos):
                photo.result()
                bar.update()
        finally:
            server.stop.set()  # after Ctrl-C the pool waits for its threads


class _BusyError(Exception):
    """A failure that may pass; `wait` is for how many seconds the server wants to be left alone."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _Server:
    """The server of the photos, asked by several threads; the first failure stops them all."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.stop = Event()

    def save(self, name: str, sha256: str, path: Path) -> None:
        """Fetch one photo into a file; wrong bytes are fetched once more."""
        if self.stop.is_set():
            return
        try:
            data = self._patiently(name)
            if _sha256(data) != sha256:
                data = self._patiently(name)
            if _sha256(data) != sha256:
                raise MeadowError(
                    f"{URL}/{name} is not the listed photo: its SHA-256 is {_sha256(data)}, not"
                    f" {sha256}. Something on the way changes files. {_OTHERWISE}"
                )
            with atomic.whole(path) as part:
                part.write_bytes(data)
        except BaseException:
            if not self.stop.is_set():  # after the first failure, others say less than it does
                self.stop.set()
                raise

    def _patiently(self, name: str) -> bytes:
        """Ask until there is an answer, with exponential backoff and jitter."""
        for attempt in range(TRIES):
            try:
                return self._once(name)
            except _BusyError as busy:
                reason = str(busy)
                wait = max(busy.wait, FIRST_WAIT * 2**attempt) * random.uniform(1.0, 1.5)
                if busy.wait > MAX_WAIT:
                    reason += f", and asks to be left alone for {busy.wait:,.0f} seconds"
                    break
            if attempt + 1 == TRIES or self.stop.wait(wait):
                break
        raise MeadowError(f"{URL}/{name}: {reason} (try {attempt + 1} of {TRIES}). {_AGAIN}")

    def _once(self, name: str) -> bytes:
        try:
            with self.client.stream("GET", f"{URL}/{name}") as answer:
                if answer.status_code == 429 or answer.status_code >= 500:
                    wait = _seconds(answer.headers.get("Retry-After", ""))
                    raise _BusyError(f"the server answers {answer.status_code}", wait)
                if answer.status_code != 200:
                    raise MeadowError(
                        f"{URL}/{name}: the server answers {answer.status_code}; the photos may"
                        f" have been taken down. {_OTHERWISE}"
                    )
                data = b""
                for chunk in answer.iter_raw():
                    data += chunk
                    if len(data) > MAX_BYTES:  # its hash is wrong already
                        break
                return data
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise _BusyError(f"no network: {error or type(error).__name__}") from None
        except httpx.RequestError as error:
            raise _BusyError(f"{type(error).__name__}: {error}") from None


def _seconds(retry_after: str) -> float:
    """Read a Retry-After header: seconds, or a date. What is neither counts as 0."""
    try:
        if retry_after.isdecimal():
            return float(retry_after)
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
