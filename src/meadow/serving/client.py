"""A client of the running service."""

import os
import time
from typing import TYPE_CHECKING, Any

from meadow.errors import MeadowError

if TYPE_CHECKING:
    import httpx

TRIES = 6
LONGEST_WAIT = 10.0  # seconds between two of them


class RefusedError(MeadowError):
    """The service does not take this photo; `error` is what it says of it."""

    def __init__(self, message: str, error: dict[str, Any]) -> None:
        super().__init__(message)
        self.error = error


class Client:
    """Asks a service; may be used by several threads at once, and keeps its connections open.

    Args:
        url: such as http://localhost:3000.
        key: for a service that wants one; else from MEADOW_API_KEY.

    """

    def __init__(self, url: str, key: str | None = None) -> None:
        import httpx  # 0.2 s

        self.url = url.rstrip("/")
        key = os.environ.get("MEADOW_API_KEY") if key is None else key
        self._http = httpx.Client(
            timeout=60, headers={"Authorization": f"Bearer {key}"} if key else {}
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
            raise MeadowError(
                f"{self.url} cannot be reached: {error}. Start it with `make serve`."
            ) from None


def _wait(seconds: str) -> float:
    return min(float(seconds), LONGEST_WAIT) if seconds.isdigit() else 1.0
