import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from meadow.serving import access
from meadow.serving.handlers import HANDLERS
from meadow.serving.middleware import HEADERS, Guard
from meadow.serving.settings import Settings

Ask = Callable[..., httpx.Response]


async def echo(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def failing(_: Request) -> Response:
    raise RuntimeError("a secret of the inside")


def guarded(**settings: Any) -> Guard:
    limits = Settings(**settings)
    checks = list(access.checks(limits).values())
    app = FastAPI(exception_handlers=HANDLERS)
    app.add_api_route("/echo", echo, methods=["POST"], dependencies=checks)
    app.add_api_route("/fails", failing)
    app.add_api_route("/health", echo)
    return Guard(app, limits, MagicMock())


def ask(guard: Guard, method: str, path: str, **request: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(guard)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, **request)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/echo", 200), ("POST", "/echo/", 200), ("HEAD", "/health", 200),
        ("GET", "/echo", 405), ("BREW", "/echo", 405), ("GET", "/", 404),
        ("GET", "/health/x", 404), ("GET", "//evil.example", 404), ("GET", "/fails", 500),
    ],
)  # fmt: skip
def test_every_answer_has_id_and_headers(method: str, path: str, status: int) -> None:
    """The errors too, in one shape."""
    answer = ask(guarded(), method, path)

    assert answer.status_code == status
    for name, value in HEADERS:
        assert answer.headers[name.decode()] == value.decode()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    if status >= 400:
        error = answer.json()["error"]
        assert error["code"] == status
        assert error["request_id"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text


def test_a_service_that_is_to_end_sends_its_clients_away(tmp_path: Path) -> None:
    """A request on a connection that is just being closed would be lost."""
    file = tmp_path / "drain"
    guard = guarded(drain=file)
    before = ask(guard, "GET", "/health").headers
    file.touch()

    assert "connection" not in before
    assert ask(guard, "GET", "/health").headers["connection"] == "close"


def test_labels_are_those_of_the_routes() -> None:
    """A scan of random addresses adds no series."""
    guard = guarded()
    for path in ("/echo", "/a", "/b/c", "/echo?x=1"):
        ask(guard, "POST", path)

    labels = {call.args[1] for call in guard.telemetry.request.call_args_list}  # type: ignore[attr-defined]
    assert labels == {"/echo", "other"}


def test_the_clients_request_id_is_kept_if_it_is_one() -> None:
    """So that one id goes through all logs; line breaks and floods do not."""
    for given, kept in (("a-1.b:2", True), ("x" * 65, False), ("a b", False)):
        answer = ask(guarded(), "GET", "/health", headers={"X-Request-ID": given})
        assert (answer.headers["x-request-id"] == given) is kept


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401), ("Bearer wrong", 401), ("Bearer", 401), ("Basic the key", 401),
        ("Bearer the key", 200), ("bearer the key", 200), ("Bearer the keyy", 401),
    ],
)  # fmt: skip
def test_a_key_is_needed_if_one_is_set(sent: str | None, status: int) -> None:
    """But not for health, which orchestrators ask."""
    guard = guarded(api_key="the key")
    headers = {"Authorization": sent} if sent else {}

    answer = ask(guard, "POST", "/echo", headers=headers)
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) is (status == 401)
    assert ask(guard, "GET", "/health").status_code == 200


@pytest.mark.parametrize("counted", [True, False])
def test_a_body_is_counted_as_it_comes(counted: bool) -> None:
    """With or without a length, and its bytes are given back."""

    async def parts() -> Any:
        for _ in range(20):
            yield b"x" * 100

    guard = guarded(max_body=1024)
    large = ask(guard, "POST", "/echo", content=b"x" * 2000 if counted else parts())
    small = ask(guard, "POST", "/echo", content=b"x" * 1024)

    assert (large.status_code, small.status_code, small.text) == (413, 200, "1024")
    assert guard.held == 0


def test_bodies_together_are_bounded() -> None:
    """Many large uploads at once get 503, not the memory of the machine."""
    guard = guarded(max_held=2048)
    guard.held = 1500
    answer = ask(guard, "POST", "/echo", content=b"x" * 1000)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert guard.held == 1500


@pytest.mark.parametrize(("key", "status"), [("", 200), ("the key", 401)])
def test_a_client_has_so_many_requests_a_minute(key: str, status: int) -> None:
    """Guesses of the key count too. Then it is told how long to wait; health is never refused."""
    guard = guarded(rate=3, api_key=key)
    statuses = [ask(guard, "POST", "/echo").status_code for _ in range(4)]
    refused = ask(guard, "POST", "/echo")

    assert statuses == [status] * 3 + [429]
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert ask(guard, "GET", "/health").status_code == 200
