import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from meadow.serving import front

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


async def hasty(scope: Any, receive: Any, send: Any) -> None:
    """Answer without reading the body; at /read only then, with its length as another header."""
    length, more = 0, scope["path"] == "/read"
    while more:
        message = await receive()
        length, more = length + len(message["body"]), message["more_body"]
    headers = [(b"content-length", b"0"), (b"x-got", b"%d" % length)]
    await send({"type": "http.response.start", "status": 429, "headers": headers})
    await send({"type": "http.response.body"})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """Serve it as BentoML serves: no protocol is asked for."""
    front.install()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(hasty, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listening.getsockname()
        server.should_exit = True
        thread.join()


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[socket.socket]:
    """Return a connection to it."""
    with socket.create_connection(address, timeout=20) as connection:
        yield connection


@pytest.mark.parametrize("more", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("sent", [0, 1000, 5_000_000])
def test_an_answer_before_the_body_is_no_reset(
    client: socket.socket, sent: int, more: bytes
) -> None:
    """Whatever has been sent of the body; and the connection serves the next request."""
    for _ in range(2):
        client.sendall(HEAD + more + b"Content-Length: 5000000\r\n\r\n" + bytes(sent))
        assert client.recv(1000).startswith(b"HTTP/1.1 429 ")
        client.sendall(bytes(5_000_000 - sent))


def test_a_body_that_nobody_reads_has_an_end(
    client: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is dropped as it comes, but not for ever."""
    monkeypatch.setattr(front, "MAX_UNREAD", 2**20)
    client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    assert client.recv(1000).startswith(b"HTTP/1.1 429 ")
    part = b"10000\r\n" + bytes(2**16) + b"\r\n"
    with pytest.raises(ConnectionError):
        client.sendall(part * 1000)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_requests_that_come_together_are_answered_in_turn(
    client: socket.socket, piece: int
) -> None:
    """In one packet, or with heads and chunks that are parted anywhere; no protocol is changed."""
    read = HEAD.replace(b"/", b"/read", 1)
    sent = (
        read + b"Content-Length: 3\r\n\r\nabc"
        + read + b"Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2;x=y\r\nef\r\n0\r\n\r\n"
        + HEAD + b"Content-Length: 5\r\n\r\nabcde"
        + read + b"Content-Length: 2\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nab"
        + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        + read + b"Connection: close\r\nContent-Length: 1\r\n\r\na"
    )  # fmt: skip
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for i in range(0, len(sent), piece):
        client.sendall(sent[i : i + piece])
    got = b""
    while part := client.recv(10_000):
        got += part

    assert re.findall(rb"x-got: (\d+)", got) == [b"3", b"6", b"0", b"2", b"0", b"1"]


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        HEAD + b"X: yyyyyyyyyy\r\n" * 7000 + b"\r\n",
        HEAD + b"X: " + b"y" * 2_000_000,  # and no end
        b"GET /" + b"y" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"y" * 400_000,
        b"GET /\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:20]) + str(len(sent)),
)
def test_a_head_has_64_kb_and_a_version(client: socket.socket, sent: bytes) -> None:
    """The parser itself has no limit, and takes HTTP/0.9."""
    try:
        client.sendall(sent)
        while answer := client.recv(1000):
            assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 429 "))
    except ConnectionError:  # it is closed while more comes
        pass


def test_a_head_of_nearly_64_kb_is_taken(client: socket.socket) -> None:
    """In one piece, or byte by byte; and a long body in small pieces is no head."""
    headers = b"X: " + b"y" * 60_000 + b"\r\n"
    for _ in range(2):
        client.sendall(HEAD + headers + b"Content-Length: 200000\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 429 ")
        for _ in range(20):
            client.sendall(bytes(10_000))
