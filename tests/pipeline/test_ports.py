import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from clones import BROKEN_PROXIES

from meadow.pipeline import ports


class Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()


@pytest.fixture
def url() -> Iterator[str]:
    """Return the URL of a server on the loopback."""
    with HTTPServer(("127.0.0.1", 0), Hello) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set proxies that answer nobody."""
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], **BROKEN_PROXIES})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.8.8", "[::1]"])
def test_the_loopback_has_several_names(host: str) -> None:
    """With any port and path."""
    assert ports.on_loopback(f"http://{host}:3000/predict")


@pytest.mark.parametrize(
    "url", ["http://localhost.example.org", "http://10.0.0.1:9000", "https://example.org", "", "x"]
)
def test_other_machines_are_not_the_loopback(url: str) -> None:
    """Nor is what is no URL."""
    assert not ports.on_loopback(url)


def test_a_server_of_ones_own_is_asked_without_a_proxy(url: str) -> None:
    """Any answer but success, and none, are no."""
    assert ports.answers(f"{url}/ready")
    assert not ports.answers(f"{url}/starting")
    assert not ports.answers("http://127.0.0.1:1")


def ask(url: str) -> None:
    """Ask as a new process would: urlopen keeps the proxies that were set at its first call."""
    urllib.request.build_opener().open(url, timeout=5).close()


def test_a_server_on_the_loopback_joins_no_proxy(url: str) -> None:
    """What was there stays; botocore, s3fs and urllib ask directly then, and no other server."""
    ports.ask_directly("https://s3.example.org")
    with pytest.raises(OSError, match="refused"):
        ask(f"{url}/ready")
    ports.ask_directly(url)

    ask(f"{url}/ready")
    assert urllib.request.proxy_bypass("10.0.0.0/8")
    assert not urllib.request.proxy_bypass("s3.example.org")


def test_no_proxy_for_anybody_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A star beside other names would mean nothing."""
    monkeypatch.setitem(os.environ, "no_proxy", "*")
    ports.ask_directly("http://127.0.0.1:9000")

    assert urllib.request.proxy_bypass("s3.example.org")


def test_without_a_proxy_the_environment_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A macOS with proxies in its system settings would no longer look there."""
    monkeypatch.setattr(os, "environ", {"HOME": str(Path.home())})
    ports.ask_directly("http://127.0.0.1:9000")

    assert list(os.environ) == ["HOME"]


def test_a_port_that_is_taken_is_not_given() -> None:
    """Another one is, of those that no system hands out by itself."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = ports.free_port(taken.getsockname()[1])

    assert 20_000 <= port < 32_000
    assert ports.free_port(port) == port
