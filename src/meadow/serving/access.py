"""Who may ask, and how often: FastAPI dependencies of the protected routes."""

import hmac
import time
from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from meadow.serving.refusals import Refused
from meadow.serving.settings import Settings

CLIENTS = 10_000  # whose rate is remembered
BEARER = HTTPBearer(auto_error=False, scheme_name="key")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]


def checks(settings: Settings) -> dict[str, Any]:
    """Return what the settings ask for: the dependencies, and the reasons for which they refuse."""
    by_reason: dict[str, Any] = {}
    if settings.rate:
        by_reason["rate"] = Depends(Rates(settings.rate))
    if settings.api_key:  # after the rate: guesses of the key are limited too
        by_reason["unauthorized"] = Depends(Key(settings.api_key))
    return by_reason


class Key:
    """Asks for `Authorization: Bearer ...`."""

    def __init__(self, key: str) -> None:
        self.key = key.encode()

    async def __call__(self, credentials: Credentials) -> None:
        """Check the key of a request; that takes as long for every key.

        Raises:
            Refused: it is another one, or there is none.

        """
        given = credentials.credentials.encode() if credentials else b""
        if not hmac.compare_digest(given, self.key):
            message = "a key is needed: `Authorization: Bearer ...`"
            raise Refused("unauthorized", message, {"WWW-Authenticate": "Bearer"})


class Rates:
    """A bucket of tokens for each client: a minute's worth at most, filled evenly."""

    def __init__(self, minute: int) -> None:
        self.minute = minute
        self.buckets: dict[str, tuple[float, float]] = {}  # tokens, when

    async def __call__(self, request: Request) -> None:
        """Take one token.

        Raises:
            Refused: there is none.

        """
        client = request.client.host if request.client else ""
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
