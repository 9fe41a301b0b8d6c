import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from clones import BROKEN_PROXIES

from meadow.errors import MeadowError
from meadow.serving.client import Client

ELSEWHERE = "http://photos.invalid:3000"  # no such host, by RFC 6761


class Echo(BaseHTTPRequestHandler):
    """Answers as a service, and as a proxy, with the URL that it was asked for."""

    def do_POST(self) -> None:
        body = f'{{"asked": "{self.path}"}}'.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def address() -> Iterator[str]:
    """Return the address of a server on the loopback."""
    with HTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set proxies that answer nobody."""
    for name, value in BROKEN_PROXIES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("proxies")
def test_a_service_on_this_machine_is_asked_directly(address: str) -> None:
    """Whatever proxies the environment names, and however."""
    with Client(f"http://{address}") as client:
        assert client.ask(b"") == {"asked": "/predict"}


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_service_elsewhere_is_asked_through_the_proxy(
    address: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though NO_PROXY has addresses that httpx takes for bad URLs."""
    monkeypatch.setenv("http_proxy", scheme + address)
    monkeypatch.setenv("NO_PROXY", BROKEN_PROXIES["NO_PROXY"])
    with Client(ELSEWHERE) as client:
        assert client.ask(b"") == {"asked": f"{ELSEWHERE}/predict"}


@pytest.mark.parametrize(
    ("proxy", "fault"),
    [("http://me:secret@127.0.0.1:1", "reached through"), ("socks5://127.0.0.1:1", "SOCKS"),
     ("ftp://127.0.0.1:1", "scheme")],
)  # fmt: skip
def test_a_broken_proxy_is_named_without_its_password(
    proxy: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what to do."""
    monkeypatch.setenv("http_proxy", proxy)
    named = r"proxy '\w+://127\.0\.0\.1:1'.*NO_PROXY"
    with pytest.raises(MeadowError, match=named) as raised, Client(ELSEWHERE) as client:
        client.ask(b"")

    assert fault in str(raised.value)
    assert "secret" not in str(raised.value)
