"""The outermost layer of the service: what no framework offers.

A body is counted while it comes, and so are all bodies together; every answer leaves with a request
id, security headers and a line in the log, and metrics have no labels but those of the routes.
"""

import logging
import random
import re
import time
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meadow.serving import tracing
from meadow.serving.refusals import REQUEST_ID, Refused
from meadow.serving.settings import Settings
from meadow.serving.telemetry import Telemetry

if TYPE_CHECKING:
    from meadow.serving.pool import Classified

HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
DEFAULTS = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)

log = logging.getLogger("meadow")


class Guard:
    """ASGI middleware around the application.

    Args:
        app: it turns `Refused`, which reading a body may raise, into an answer.
        settings: the limits.
        telemetry: is told of each request.

    """

    def __init__(self, app: ASGIApp, settings: Settings, telemetry: Telemetry) -> None:
        self.app = app
        self.settings = settings
        self.telemetry = telemetry
        self.held = 0  # bytes of all bodies in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard = guard
        self._receive = receive
        self._send = send
        self.size = 0
        self.status = 0
        self.began = time.perf_counter()
        self.headers = Headers(scope=scope)
        given = self.headers.get("x-request-id", "")
        self.id = given if re.fullmatch(REQUEST_ID, given) else f"{random.getrandbits(64):016x}"
        self.method = scope["method"]
        self.ids = {"request_id": self.id}
        if parent := tracing.parent(self.headers):
            self.ids["trace_id"] = tracing.trace_id(parent)
        self.parent = parent
        self.photos: list[Classified] = []  # that the application has answered
        self.log: dict[str, Any] = {}  # what the application adds to the request's line
        self.scope = {
            **scope,
            "method": "GET" if self.method == "HEAD" else self.method,  # the server drops the body
            "path": scope["path"].rstrip("/") or "/",
            "state": {"id": self.id, "ids": self.ids, "log": self.log, "photos": self.photos},
        }

    async def run(self) -> None:
        try:
            await self.guard.app(self.scope, self.receive, self.send)
        except (OSError, ClientDisconnect):  # the client went away while it was answered
            self.log["reason"], self.status = "gone", 499
        except Exception:  # it is answered with 500 already
            log.exception("request %s", self.id)
        finally:
            self.guard.held -= self.size
            self.record()

    async def receive(self) -> Message:
        guard, limits = self.guard, self.guard.settings
        if not self.size:
            length = self.headers.get("content-length", "")
            if length.isdecimal() and int(length[:20]) > limits.max_body:
                raise self.too_large()
        message = await self._receive()
        if message["type"] == "http.request":
            got = len(message.get("body", b""))
            self.size += got
            guard.held += got
            if self.size > limits.max_body:
                raise self.too_large()
            if guard.held > limits.max_held:
                raise Refused("memory", "too many large photos are under way")
        return message

    def too_large(self) -> Refused:
        most = self.guard.settings.max_body
        return Refused("too_large", f"the body has more than {most:,} bytes")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            present = {name.lower() for name, _ in headers}
            headers += [(b"x-request-id", self.id.encode()), *HEADERS]
            headers += [(name, value) for name, value in DEFAULTS if name not in present]
            drain = self.guard.settings.drain
            if drain and drain.exists():  # the client asks another pod from now on
                headers.append((b"connection", b"close"))
        await self._send(message)

    def record(self) -> None:
        telemetry = self.guard.telemetry
        if reason := self.log.get("reason"):
            telemetry.rejects[reason].inc()
        seconds = time.perf_counter() - self.began
        method, route = self.method[:10], getattr(self.scope.get("route"), "path", "other")
        telemetry.request(
            method, route, self.status, seconds, self.ids, bytes=self.size, **self.log
        )
        if telemetry.spans and method == "POST":
            attributes = {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": self.status,
                "meadow.request_id": self.id,
            }
            name = f"{method} {route}"
            telemetry.spans.request(name, self.parent, seconds, attributes, self.photos)
