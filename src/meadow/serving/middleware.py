"""The outermost layer of the service, before BentoML's own.

Nothing gets past it that is too much, and every answer leaves with a request id, security headers
and a line in the log.
"""

import hmac
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Set
from functools import cached_property
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from meadow.serving.refusals import Refused
from meadow.serving.settings import Settings
from meadow.serving.telemetry import Telemetry

Routes = Mapping[str, Mapping[str, Callable[[Request], Awaitable[ASGIApp]]]]  # path, method

REQUEST_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
CLIENTS = 10_000  # whose rate is remembered

log = logging.getLogger("meadow")


class Guard:
    """Checks each request, calls its handler, and turns whatever is raised into an answer.

    Args:
        settings: the limits.
        bento: BentoML's application: it starts and ends the service, and has the metrics.
        service: returns the service when that has started; its routes are the only ones that
            there are, so metrics and log have no other labels.
        public: paths that need no key.

    """

    def __init__(
        self, settings: Settings, bento: ASGIApp, service: Callable[[], Any], public: Set[str]
    ) -> None:
        self.settings = settings
        self.bento = bento
        self.service = service
        self.public = public
        self.held = 0  # bytes of all bodies in memory
        self.rates = Rates(settings.rate)

    @cached_property
    def telemetry(self) -> Telemetry:
        """The service's."""
        found: Telemetry = self.service().telemetry
        return found

    @cached_property
    def routes(self) -> Routes:
        """The service's, and BentoML's metrics."""
        return {**self.service().routes, "/metrics": {"GET": self._metrics}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.bento(scope, receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def answer(self, request: Request, path: str) -> ASGIApp:
        """Answer a request that may be answered.

        Raises:
            Refused: it may not.

        """
        methods = self.routes.get(path)
        if methods is None:
            raise Refused("not_found", f"there is nothing at {path[:100]}; see /docs")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            allowed = ", ".join(methods)
            raise Refused("method", f"{path} takes {allowed}", {"Allow": allowed})
        if path not in self.public:
            self._authorize(request)
            self.rates.take(request.client.host if request.client else "")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.settings.max_body:
            raise self.too_large()
        return await methods[method](request)

    def too_large(self) -> Refused:
        """Return the refusal of a body that is too large."""
        return Refused("too_large", f"the body has more than {self.settings.max_body:,} bytes")

    async def _metrics(self, _: Request) -> ASGIApp:
        return self.bento

    def _authorize(self, request: Request) -> None:
        if not self.settings.api_key:
            return
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        expected = self.settings.api_key.encode()
        # the comparison comes first, and takes as long for every key
        if not hmac.compare_digest(key.encode(), expected) or kind.lower() != "bearer":
            message = "a key is needed: `Authorization: Bearer ...`"
            raise Refused("unauthorized", message, {"WWW-Authenticate": "Bearer"})


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send) -> None:
        self.guard = guard
        self.scope = scope
        self._receive = receive
        self._send = send
        self.size = 0
        self.status = 0
        self.began = time.perf_counter()
        self.request = Request(scope, self.receive)
        given = self.request.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        path: str = scope["path"]
        self.path = scope["path"] = path.rstrip("/") or "/"
        self.request.state.id = self.id
        self.request.state.log = {}

    async def run(self) -> None:
        reason = None
        try:
            try:
                response = await self.guard.answer(self.request, self.path)
            except Refused as refused:
                reason = refused.reason
                if reason == "gone":
                    self.status = refused.status
                    return
                response = refused.response(self.id)
            except ClientDisconnect:
                reason, self.status = "gone", 499
                return
            except Exception:
                log.exception("request %s", self.id)
                reason = "fault"
                response = Refused("fault", "a fault of the service").response(self.id)
            await response(self.scope, self.receive, self.send)
        except OSError:  # the client went away while it was answered
            reason, self.status = "gone", 499
        finally:
            self.guard.held -= self.size
            self.record(reason)

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            got = len(message.get("body", b""))
            self.size += got
            self.guard.held += got
            if self.size > self.guard.settings.max_body:
                raise self.guard.too_large()
            if self.guard.held > self.guard.settings.max_held:
                raise Refused("memory", "too many large photos are under way")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            headers += [(b"x-request-id", self.id.encode()), *HEADERS]
            present = {name.lower() for name, _ in headers}
            if POLICY[0] not in present:
                headers.append(POLICY)
            if b"cache-control" not in present:
                headers.append((b"cache-control", b"no-store"))
        await self._send(message)

    def record(self, reason: str | None) -> None:
        telemetry = self.guard.telemetry
        route = self.path if self.path in self.guard.routes else "other"
        method = self.scope["method"]
        more: dict[str, Any] = {"bytes": self.size, **self.request.state.log}
        if reason:
            telemetry.rejects[reason].inc()
            more["reason"] = reason
        telemetry.request(
            method if method in METHODS else "other",
            route, self.status, time.perf_counter() - self.began, self.id, **more,
        )  # fmt: skip


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Rates:
    """A bucket of tokens for each client: a minute's worth at most, filled evenly."""

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.buckets: dict[str, tuple[float, float]] = {}  # tokens, when

    def take(self, client: str) -> None:
        """Take one token.

        Raises:
            Refused: there is none.

        """
        if not self.minute:
            return
        now = time.monotonic()
        tokens, then = self.buckets.pop(client, (float(self.minute), now))
        tokens = min(self.minute, tokens + (now - then) * self.minute / 60)
        enough = tokens >= 1
        self.buckets[client] = (tokens - enough, now)  # at the end: the first is the oldest
        if len(self.buckets) > CLIENTS:
            del self.buckets[next(iter(self.buckets))]
        if not enough:
            wait = int((1 - tokens) * 60 / self.minute) + 1
            message = f"more than {self.minute} requests a minute"
            raise Refused("rate", message, {"Retry-After": str(wait)})
