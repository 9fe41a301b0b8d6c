"""HTTP as the service speaks it: uvicorn's httptools protocol, with bounds that it lacks.

BentoML starts uvicorn with the protocol that is named "auto" there; `install` puts this one in its
place. A middleware sees a request when its head is complete, which is too late to bound it.
"""

from array import array
from typing import Any

import httptools
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 64 * 2**10  # bytes of a request's first line and headers
MAX_UNREAD = 32 * 2**20  # bytes of a body that are dropped after an answer that did not wait for it


class Parser(httptools.HttpRequestParser):
    """It goes on where a client offers to change the protocol, which nobody does here.

    httptools itself ends such a request before its body. Java's own client sends them.
    """

    def __init__(self, front: "Front") -> None:
        super().__init__(front)
        self.front = front
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        """Parse what has come; the offer is left out of a head that has one."""
        rest = memoryview(data)
        while True:
            try:
                return super().feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                super().feed_data(self.front.plain_head())
                rest = rest[upgrade.args[0] :]


class Front(HttpToolsProtocol):
    """A connection. What raises here is answered with 400 by uvicorn, and the connection ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = Parser(self)
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
        if self.parser.get_method() == b"CONNECT":
            raise ValueError("this is no proxy")
        self.untold = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request has come."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def plain_head(self) -> bytes:
        """Return the head that came last, without an offer to change the protocol."""
        line = b"%s %s HTTP/%s" % (
            self.parser.get_method(), self.url, self.parser.get_http_version().encode(),
        )  # fmt: skip
        headers = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([line, *headers, b"", b""])

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
