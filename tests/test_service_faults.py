"""What a service meets in the wild: it answers as it should, or the client is gone."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from bad_photos import GOOD, MULTIPART, Call, calls, files, mutated, part
from PIL import Image
from toys import encoded

from meadow.errors import MeadowError
from meadow.pipeline.image import PhotoError, Preprocessing
from meadow.serving import server
from meadow.serving.settings import Settings

pytestmark = pytest.mark.slow
TIMES = int(os.environ.get("CORPUS", "1"))  # `make corpus` has five times as many
STATUS = {"format": 415, "damaged": 422, "too_small": 422, "too_large": 413}
DOORS: dict[str, Callable[[bytes], tuple[bytes, dict[str, str]]]] = {
    "body": lambda data: (data, {"Content-Type": "application/octet-stream"}),
    "field": lambda data: (part(data), MULTIPART),
}


@contextmanager
def started(bento: Path, **settings: str) -> Iterator[tuple[httpx.Client, psutil.Process]]:
    """Serve a Bento; give a client, and the first of its processes."""
    before = set(psutil.Process().children())
    with ExitStack() as stack:
        url = stack.enter_context(server.serving(bento, **settings))
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        (process,) = set(psutil.Process().children()) - before
        yield client, process


@pytest.fixture(scope="module")
def client(packaged: Path) -> Iterator[httpx.Client]:
    """Talk to a service that most tests share; by its own count none of it was its fault."""
    with started(packaged / server.BENTO) as (client, _):
        yield client
        text = client.get("/metrics").text
        faults = re.findall(r'^.*(?:reason="fault"|status="5).* (?!0\.0$)\S+$', text, re.MULTILINE)

        assert faults == []
        assert client.get("/readyz").json() == {"status": "ok"}


@pytest.fixture(scope="module")
def strict(packaged: Path) -> Iterator[httpx.Client]:
    """Talk to one with a short line and little patience."""
    with started(packaged / server.BENTO, MEADOW_TIMEOUT="5", MEADOW_QUEUE="2") as (client, _):
        yield client


@pytest.mark.parametrize("door", DOORS)
def test_each_file_gets_its_status(client: httpx.Client, door: str) -> None:
    """By either door, and an error says so in the one shape that errors have."""

    def ask(item: tuple[str, tuple[bytes, int]]) -> tuple[str, int, int] | None:
        name, (data, status) = item
        body, headers = DOORS[door](data)
        answer = client.post("/predict", content=body, headers=headers)
        right = answer.status_code == status and well_formed(answer)
        return None if right else (name, status, answer.status_code)

    with ThreadPoolExecutor(4) as pool:
        assert [wrong for wrong in pool.map(ask, files().items()) if wrong] == []


@pytest.mark.parametrize("call", list(calls(Settings().max_body)), ids=lambda call: call.name[:40])
def test_each_call_gets_its_status(client: httpx.Client, call: Call) -> None:
    """Wrong methods, addresses, content types and multipart bodies."""
    answer = client.request(call.method, call.path, content=call.body, headers=call.headers)

    assert answer.status_code == call.status, answer.text
    assert call.method == "HEAD" or well_formed(answer), answer.text


def well_formed(answer: httpx.Response) -> bool:
    """Tell whether it is a prediction, or an error with code, message and request id."""
    content = answer.json()
    if answer.status_code == 200:
        return "label" in content
    error = content["error"]
    return (
        list(content) == ["error"]
        and error["code"] == answer.status_code
        and isinstance(error["message"], str)
        and error["request_id"] == answer.headers["x-request-id"]
    )


def test_thousands_of_mutated_photos_are_answered_or_refused(client: httpx.Client) -> None:
    """Each as the photo's own code says, 16 in a request; a bad one spoils no other."""
    see = Preprocessing(32, "squash")

    def expected(data: bytes) -> int:
        try:
            see(data)
        except PhotoError as error:
            return STATUS[error.reason]
        return 200

    def ask(first: int) -> list[tuple[int, int, int]]:
        photos = [mutated(number) for number in range(first, first + 16)]
        fields = [("files", ("x", data)) for data in photos]
        answer = client.post("/predict/batch", files=fields)
        assert answer.status_code == 200, (first, answer.text)
        results = answer.json()["predictions"]
        got = [result.get("error", {"code": 200})["code"] for result in results]
        return [
            (first + i, want, code)
            for i, (want, code) in enumerate(zip(map(expected, photos), got, strict=True))
            if want != code
        ]

    with ThreadPoolExecutor(2) as pool:
        batches = pool.map(ask, range(0, 2_000 * TIMES, 16))
        assert [wrong for batch in batches for wrong in batch] == []


def test_the_document_and_the_service_agree(client: httpx.Client, tmp_path: Path) -> None:
    """Schemathesis makes requests from the OpenAPI document and checks the answers by it."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{client.base_url}/docs.json",
        "--max-examples", str(15 * TIMES), "--seed", "1", "--no-color",
        "--generation-database", "none",
        "--exclude-checks", "positive_data_acceptance",  # a random body is no photo
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout[-6000:]


@contextmanager
def connections(client: httpx.Client, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open some connections that send this much and no more."""
    address = (client.base_url.host, client.base_url.port)
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
        for connection in opened:
            connection.sendall(sent)
        yield opened


HALF_HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Le"
HALF_BODY = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n\xff\xd8\xff"


def test_idle_and_half_sent_connections_disturb_nobody(client: httpx.Client) -> None:
    """200 idle ones, 50 in the middle of the head, 50 in the middle of the body."""
    with (
        connections(client, 200, b""),
        connections(client, 50, HALF_HEAD),
        connections(client, 50, HALF_BODY),
    ):
        slowest = 0.0
        for _ in range(20):
            answer = client.post("/predict", content=GOOD)
            slowest = max(slowest, answer.elapsed.total_seconds())
            assert answer.status_code == 200
    assert slowest < 10  # far below the time-outs of the connections that wait
    assert client.get("/readyz").status_code == 200


def test_a_body_that_does_not_come_is_waited_for_so_long(strict: httpx.Client) -> None:
    """Five seconds here; then 408."""
    with connections(strict, 1, HALF_BODY) as (connection,):
        connection.settimeout(15)
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # somebody tries TLS
        b"hello\r\n\r\n",
        b"GET /\r\nX: y\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: yyyyyyyyyy\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"y" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 2_000_000,  # and no end
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_not_http_is_refused(client: httpx.Client, sent: bytes) -> None:
    """With a 4xx, or the connection is closed."""
    with connections(client, 1, b"") as (connection,):
        connection.settimeout(5)
        try:
            connection.sendall(sent)
            answer = connection.recv(100)
        except ConnectionError:
            answer = b""
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer


def test_a_full_line_is_said_to_be(strict: httpx.Client) -> None:
    """429 at once, with Retry-After, and what was accepted is answered."""
    photo = encoded(Image.new("RGB", (2000, 2000)), "PNG")

    def ask(_: int) -> httpx.Response:
        return httpx.post(f"{strict.base_url}/predict", content=photo, timeout=30)

    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(48)))
    shed = [answer for answer in answers if answer.status_code == 429]

    assert Counter(answer.status_code for answer in answers).keys() == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in shed)
    assert strict.post("/predict", content=photo).status_code == 200


def test_sigterm_loses_no_accepted_request(packaged: Path) -> None:
    """All that were under way are answered, then the process ends by itself."""
    photo = encoded(Image.new("RGB", (4000, 4000)), "PNG")
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(photo)}\r\n\r\n"
    settings = {"MEADOW_THREADS": "1", "MEADOW_TIMEOUT": "300"}  # however slow the machine
    with started(packaged / server.BENTO, **settings) as (client, process):
        (worker,) = process.children()
        with connections(client, 12, head.encode() + photo) as opened:
            end = time.monotonic() + 30
            while [one.status for one in worker.net_connections()].count("ESTABLISHED") < 12:
                assert time.monotonic() < end
                time.sleep(0.01)
            client.get("/health")  # it came last: the others have been read
            process.send_signal(signal.SIGTERM)
            assert [connection.recv(12) for connection in opened] == [b"HTTP/1.1 200"] * 12
        process.wait(30)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{client.base_url}/readyz")


def test_a_killed_worker_is_replaced(packaged: Path) -> None:
    """As the kernel kills one that takes too much memory; the other answers meanwhile."""
    with started(packaged / server.BENTO, MEADOW_WORKERS="2") as (client, process):
        worker, _ = before = process.children()
        worker.kill()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                if httpx.post(f"{client.base_url}/predict", content=GOOD).status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.1)
        while len(set(process.children()) - {worker}) < len(before):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert client.post("/predict", content=GOOD).status_code == 200


def test_a_corrupt_model_never_becomes_ready(packaged: Path, tmp_path: Path) -> None:
    """One bit of it is enough; and it says why."""
    bento = shutil.copytree(packaged / server.BENTO, tmp_path / "bento")
    network = bento / "src/models/classifier/model.onnx"
    data = bytearray(network.read_bytes())
    data[-100] ^= 1
    network.write_bytes(data)
    with pytest.raises(MeadowError, match="is damaged: its SHA-256"), server.serving(bento):
        pass
