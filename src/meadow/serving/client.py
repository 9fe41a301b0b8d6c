"""A client of the running service."""

import os
import re
import time
from typing import TYPE_CHECKING, Any

from meadow.errors import MeadowError
from meadow.pipeline.ports import on_loopback

if TYPE_CHECKING:
    import httpx

TRIES = 6
LONGEST_WAIT = 10.0  # seconds between two of them
_PROXIES = (
    "Set http_proxy, https_proxy or ALL_PROXY to http://HOST:PORT, or name the service's host in"
    " NO_PROXY."
)


class RefusedError(MeadowError):
    """The service does not take this photo; `error` is what it says of it."""

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

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, photo: bytes) -> dict[str, Any]:
        """Send the bytes of one photo; return the answer.

        A service that is overloaded or not ready is asked again, when it says so.

        Raises:
            RefusedError: it does not take this photo.
            MeadowError: it cannot be reached, or is no photo classifier.

        """
        for left in reversed(range(TRIES)):
            response = self._post(photo)
            if response.status_code not in (429, 503) or not left:
                break
            time.sleep(_wait(response.headers.get("retry-after", "")))
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
        if response.status_code in (400, 413, 415, 422):
            raise RefusedError(message, error)
        raise MeadowError(message)

    def _post(self, photo: bytes) -> "httpx.Response":
        import httpx

        try:
            return self._http.post(
                f"{self.url}/predict",
                content=photo,
                headers={"Content-Type": "application/octet-stream"},
            )
        except (httpx.TransportError, httpx.InvalidURL) as error:
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


def _wait(seconds: str) -> float:
    return min(float(seconds), LONGEST_WAIT) if seconds.isdigit() else 1.0
