"""HTTP as the service speaks it: uvicorn's httptools protocol, with bounds that it lacks.

BentoML starts uvicorn with the protocol that is named "auto" there; `install` puts this one in its
place. A middleware sees a request when its head is complete, which is too late to bound it.
"""

from typing import Any

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 2**10  # bytes of a request's first line and headers
MAX_UNREAD = 32 * 2**20  # bytes of a body that are dropped after an answer that did not wait for it


class Front(HttpToolsProtocol):
    """A connection. What raises here is answered with 400 by uvicorn, and the connection ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.untold = 0  # bytes that came since the end of a head or a part of a body
        self.head = 0  # bytes of the head, and of trailers
        self.unread = 0  # bytes of the body that nobody read

    def data_received(self, data: bytes) -> None:
        """Take what has come; of a line that has no end the parser tells nothing."""
        self.untold += len(data)
        super().data_received(data)
        if self.untold > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.head = self.unread = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer behind a body."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Have the request answered."""
        if self.parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("no version of HTTP, or one that is not spoken here")
        self.untold = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; what comes after the answer is dropped, up to a limit.

        A connection that is closed while its client sends is reset, and the client may not see the
        answer.
        """
        self.untold = 0
        super().on_body(body)
        if self.cycle.response_complete:
            self.unread += len(body)
            if self.unread > MAX_UNREAD:
                self.transport.close()

    def _count(self, size: int) -> None:
        self.head += size
        if self.head > MAX_HEAD:
            raise ValueError("the head of the request is too large")


def install() -> None:
    """Have uvicorn use it where no protocol is asked for."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Front.__name__}"
