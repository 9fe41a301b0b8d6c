"""The real set: fetched politely, checked byte by byte, from a server that is never trusted."""

import contextlib
import hashlib
import re
import shutil
import signal
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from tools import PHOTOS

from meadow.commands import dandelion_grass
from meadow.commands.dandelion_grass import fetch
from meadow.errors import MeadowError
from meadow.pipeline import cache

ONE = "dandelion/00000000.jpg"


class Server(ThreadingHTTPServer):
    """Serves the photos of a folder; `faults` holds what to do instead, request by request."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.removeprefix("/data/")
        self.server.asked.append(name)
        faults = self.server.faults[name]
        with contextlib.suppress(ConnectionError):  # the client may hang up
            (faults.pop(0) if faults else ok)(self, (self.server.folder / name).read_bytes())

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


Fault = Callable[[Handler, bytes], None]


def ok(handler: Handler, data: bytes) -> None:
    handler.reply(200, data)


def status(code: int) -> Fault:
    return lambda handler, _data: handler.reply(code, b"sorry")


def wrong(handler: Handler, data: bytes) -> None:
    handler.reply(200, data[:-1] + b"?")


def cut_short(handler: Handler, data: bytes) -> None:
    handler.reply(200, data[:50], Content_Length=str(len(data)))


def hang_up(handler: Handler, data: bytes) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def endless(handler: Handler, data: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(10_000):  # 10 GB
        handler.wfile.write(bytes(1_000_000))
    raise AssertionError("the client read it all")


def slow(handler: Handler, data: bytes) -> None:
    time.sleep(0.5)
    handler.reply(200, data)


def interrupt(_handler: Handler, _data: bytes) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)  # as Ctrl-C does; there is no answer


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw a small set and put it in the place of the listed one."""
    folder = tmp_path / "published"
    hashes = {}
    for number in range(6):
        name = f"{('dandelion', 'grass')[number % 2]}/{number // 2:08}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 12), (40 * number, 80, 160)).save(folder / name)
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    monkeypatch.setattr(dandelion_grass, "listed", lambda: hashes)
    return folder


@pytest.fixture
def server(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _seconds: None))
    with Server(photos) as server:
        monkeypatch.setattr(dandelion_grass, "URL", f"http://127.0.0.1:{server.server_port}/data")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(target: Path, source: Path | None = None) -> str:
    """Assert that a fetch is refused and writes no target; return what it says."""
    with pytest.raises(MeadowError) as error:
        fetch(target, source)
    assert not target.exists()
    return str(error.value)


def test_the_committed_list() -> None:
    """The list has the hashes of 200 photos of each class, numbered from 0."""
    hashes = dandelion_grass.listed()
    names = {f"{label}/{n:08}.jpg" for label in ("dandelion", "grass") for n in range(200)}
    assert set(hashes) == names
    assert all(len(bytes.fromhex(sha256)) == 32 for sha256 in hashes.values())
    assert dandelion_grass.URL.endswith(f"/{dandelion_grass.COMMIT}/data")


def test_a_download(server: Server, photos: Path, tmp_path: Path) -> None:
    """Each photo is asked for once, and a second run asks for nothing."""
    fetch(tmp_path / "raw", None)
    assert contents(tmp_path / "raw") == contents(photos)
    assert Counter(server.asked) == dict.fromkeys(contents(photos), 1)
    fetch(tmp_path / "again", None)
    assert contents(tmp_path / "again") == contents(photos)
    assert len(server.asked) == 6


@pytest.mark.parametrize(
    "faults",
    [
        [status(500), status(502), status(504), status(429)],
        [cut_short],
        [hang_up],
        [wrong],
        [endless],
    ],
)
def test_faults_that_pass(
    faults: list[Fault], server: Server, photos: Path, tmp_path: Path
) -> None:
    """A fault that passes costs one more request for that photo, and nothing else."""
    server.faults[ONE] = list(faults)
    fetch(tmp_path / "raw", None)
    assert contents(tmp_path / "raw") == contents(photos)
    assert Counter(server.asked) == dict.fromkeys(contents(photos), 1) | {ONE: len(faults) + 1}


def test_a_server_that_falls_silent(
    server: Server, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that is not answered in time is made again."""
    monkeypatch.setattr(dandelion_grass, "TIMEOUT", 0.25)
    server.faults[ONE] = [slow]
    fetch(tmp_path / "raw", None)
    assert contents(tmp_path / "raw") == contents(photos)
    assert server.asked.count(ONE) >= 2


@pytest.mark.parametrize(
    ("fault", "requests", "message"),
    [
        (status(503), 5, r"503 Server Error.* \(tried 5 times\).*run `meadow data dandelion-gr"),
        (hang_up, 5, r"Remote.*Disconnected.*\(tried 5 times\)"),
        (status(404), 1, r"00000000\.jpg: the server answers 404.*--from DIR"),
        (wrong, 5, r"00000000\.jpg is not the listed photo.*--from DIR"),
        (endless, 5, r"00000000\.jpg is not the listed photo"),
    ],
)
def test_faults_that_stay(
    fault: Fault, requests: int, message: str, server: Server, tmp_path: Path
) -> None:
    """After five tries, or one where a photo is gone, it ends; wrong bytes are never kept."""
    server.faults[ONE] = [fault] * 9
    assert re.search(message, refused(tmp_path / "raw"))
    assert server.asked.count(ONE) == requests
    kept = contents(cache.folder("downloads"))
    assert kept.keys() <= {f"{dandelion_grass.COMMIT}/{name}" for name in server.asked}
    assert f"{dandelion_grass.COMMIT}/{ONE}" not in kept


def test_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, the ways that need none are named."""
    with socket.socket() as unused:  # bound but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data"
        monkeypatch.setattr(dandelion_grass, "URL", url)
        message = refused(tmp_path / "raw")
    assert "Connection refused" in message
    assert "`meadow data dandelion-grass --from DIR` takes a copy at hand" in message
    assert "`meadow data demo` needs no network" in message


@pytest.mark.parametrize("fault", [interrupt, status(404)])
def test_a_cut_download_goes_on(
    fault: Fault,
    server: Server,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After Ctrl-C or an error, what was fetched is not fetched again."""
    monkeypatch.setattr(dandelion_grass, "CONNECTIONS", 1)
    server.faults[list(dandelion_grass.listed())[3]] = [fault]
    with pytest.raises((KeyboardInterrupt, MeadowError)):
        fetch(tmp_path / "raw", None)
    assert not (tmp_path / "raw").exists()
    kept = contents(cache.folder("downloads") / dandelion_grass.COMMIT)
    assert len(kept) >= 3
    server.asked.clear()
    fetch(tmp_path / "raw", None)
    assert contents(tmp_path / "raw") == contents(photos)
    assert set(server.asked) == set(contents(photos)) - set(kept)


def test_a_damaged_cache(server: Server, photos: Path, tmp_path: Path) -> None:
    """What was kept is checked too, and only what is wrong is fetched again."""
    fetch(tmp_path / "raw", None)
    server.asked.clear()
    (cache.folder("downloads") / dandelion_grass.COMMIT / ONE).write_bytes(b"half")
    fetch(tmp_path / "raw", None)
    assert contents(tmp_path / "raw") == contents(photos)
    assert server.asked == [ONE]


@pytest.mark.parametrize("below", [".", "data"])
def test_a_copy_at_hand(below: str, photos: Path, tmp_path: Path) -> None:
    """A copy is found as two folders or in a clone, and only what is listed is taken."""
    shutil.copytree(photos, tmp_path / "copy" / below)
    (tmp_path / "copy" / below / "grass/more.jpg").write_bytes(b"x")
    (tmp_path / "raw/daisy").mkdir(parents=True)
    fetch(tmp_path / "raw", tmp_path / "copy")
    assert contents(tmp_path / "raw") == contents(photos)
    assert not (tmp_path / "raw/daisy").exists()


def test_a_copy_that_is_not_the_set(photos: Path, tmp_path: Path) -> None:
    """Missing and changed photos of a copy are named."""
    (photos / ONE).unlink()
    (photos / "grass/00000001.jpg").write_bytes(bytes(2_000_000))
    message = refused(tmp_path / "raw", photos)
    assert f"{ONE} is missing, grass/00000001.jpg is not the listed one." in message


def test_a_folder_of_something_else(photos: Path, tmp_path: Path) -> None:
    """The message names the folder, and stays short."""
    message = refused(tmp_path / "raw", tmp_path / "no")
    assert message.startswith(f"{tmp_path / 'no'} is not the set of 6 photos")


def test_a_copy_that_would_be_destroyed(photos: Path) -> None:
    """The target may not be the copy itself."""
    before = contents(photos)
    with pytest.raises(MeadowError, match="overlap"):
        fetch(photos, photos)
    assert contents(photos) == before


@pytest.mark.slow
@pytest.mark.needs("photos")
def test_the_real_photos(tmp_path: Path) -> None:
    """The committed list is that of the real photos."""
    fetch(tmp_path / "raw", PHOTOS)
    assert Counter(name.split("/")[0] for name in contents(tmp_path / "raw")) == {
        "dandelion": 200,
        "grass": 200,
    }
