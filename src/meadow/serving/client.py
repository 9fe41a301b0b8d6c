"""A client of the running service."""

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from meadow.errors import MeadowError
from meadow.pipeline.ports import on_loopback

if TYPE_CHECKING:
    import httpx

BUSY = (429, 503, 504)
PATIENCE = 120.0  # seconds without any answer, after which a photo is given up
_PROXIES = (
    "Set http_proxy, https_proxy or ALL_PROXY to http://HOST:PORT, or name the service's host in"
    " NO_PROXY."
)


class RefusedError(MeadowError):
    """There is no answer to this photo, but may be to others; `error` is what the service says."""

    def __init__(self, message: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.error = error


class Client:
    """Asks a service; may be used by several threads at once, and keeps its connections open.

    On this machine it asks directly, elsewhere by the proxy that the environment names.

    Args:
        url: such as http://localhost:3000.
        key: for a service that wants one; else from MEADOW_API_KEY.

    Raises:
        MeadowError: the proxy's setting cannot be used.

    """

    def __init__(self, url: str, key: str | None = None) -> None:
        import httpx  # 0.2 s

        self.url = url.rstrip("/")
        key = os.environ.get("MEADOW_API_KEY") if key is None else key
        proxy = "" if on_loopback(url) else _proxy(url)
        try:
            # With a transport httpx leaves the environment's proxies alone: an IPv6 address in
            # NO_PROXY or a SOCKS proxy for other programs would be an error.
            transport = httpx.HTTPTransport(proxy=proxy or None)
        except (ValueError, ImportError, httpx.InvalidURL) as error:
            raise MeadowError(
                f"the proxy {_shown(proxy)!r} cannot be used: {error} {_PROXIES}"
            ) from None
        self._through = f" through the proxy {_shown(proxy)!r}" if proxy else ""
        self._http = httpx.Client(
            transport=transport,
            timeout=60,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._reached = False
        self._answered = time.monotonic()  # when the service last had time for a photo

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, photo: bytes) -> dict[str, Any]:
        """Send the bytes of one photo; return the answer.

        Raises:
            RefusedError, MeadowError: see `_ask`.

        """
        return self._ask("/predict", photo, "application/octet-stream")

    def label(self, request_id: str, place: int, label: str) -> None:
        """Send the true label of a photo that was answered, by its place in the request.

        Raises:
            RefusedError, MeadowError: see `_ask`.

        """
        feedback = {"request_id": request_id, "photo": place, "label": label}
        self._ask("/feedback", json.dumps(feedback).encode(), "application/json")

    def _ask(self, path: str, content: bytes, kind: str) -> dict[str, Any]:
        """Send a body; return the answer.

        A service that is busy is asked again when it says so, and one that is being restarted each
        second, as long as it answers somebody: of the threads that ask at once, a limit on requests
        may let each through in its turn alone.

        Raises:
            RefusedError: it does not take this, or had no time for anything for two minutes.
            MeadowError: it cannot be reached, is no photo classifier, takes no labels, or wants
                another key.

        """
        while (response := self._post(path, content, kind)) is None or response.status_code in BUSY:
            wait = _seconds(response)
            if response is not None and time.monotonic() + wait > self._answered + PATIENCE:
                break
            time.sleep(wait)
        else:
            self._answered = time.monotonic()
        try:
            answer: dict[str, Any] = response.json()
            if response.is_success:
                return answer
            error = answer["error"]
            message = f"{self.url} answers {response.status_code}: {error['message']}"
        except (ValueError, KeyError, TypeError):
            raise MeadowError(
                f"{self.url} answers {response.status_code}, and not as a photo classifier does:"
                f" {response.text[:200]!r}"
            ) from None
        of_all = response.status_code in (401, 403, 404, 405)
        if of_all and error.get("reason") != "unknown_id":  # as all others would be
            raise MeadowError(message)
        raise RefusedError(message, error)

    def _post(self, path: str, content: bytes, kind: str) -> "httpx.Response | None":
        """Return the answer; none where the service was there two minutes ago, and is not."""
        import httpx

        try:
            response = self._http.post(
                f"{self.url}{path}", content=content, headers={"Content-Type": kind}
            )
            self._reached = True
            return response
        except (httpx.TransportError, httpx.InvalidURL) as error:
            if self._reached and time.monotonic() < self._answered + PATIENCE:
                return None
            advice = _PROXIES if self._through else "Start it with `make serve`."
            raise MeadowError(
                f"{self.url} cannot be reached{self._through}: {error}. {advice}"
            ) from None


def _proxy(url: str) -> str:
    """Return the proxy that the environment names for a URL, or nothing."""
    from requests.utils import get_environ_proxies, select_proxy  # 0.1 s; knows CIDR in NO_PROXY

    proxy = select_proxy(url, get_environ_proxies(url)) or ""
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _shown(proxy: str) -> str:
    """Return a proxy's URL without its user and password."""
    return re.sub(r"//.*@", "//", proxy)


def _seconds(response: "httpx.Response | None") -> float:
    given = "" if response is None else response.headers.get("retry-after", "")
    return float(given) if given.isdecimal() else 1.0
