"""Why the service refuses, and the one shape in which it says so."""

import json
from collections.abc import Mapping

from starlette.responses import Response

STATUS = {
    "malformed": 400,
    "parameter": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "format": 415,
    "damaged": 422,
    "too_small": 422,
    "busy": 429,
    "rate": 429,
    "gone": 499,  # nobody reads it; it is for the log
    "fault": 500,
    "memory": 503,
    "timeout": 504,
}


class Refused(Exception):  # noqa: N818  # it is an answer, not a fault
    """A request, or a photo of one, that gets an error; `reason` is a key of `STATUS`."""

    def __init__(self, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = STATUS[reason]
        self.headers = dict(headers or {})
        if self.status in (429, 503, 504):
            self.headers.setdefault("Retry-After", "1")

    def body(self, request_id: str) -> dict[str, dict[str, str | int]]:
        """Return what is sent."""
        return {
            "error": {
                "code": self.status,
                "reason": self.reason,
                "message": str(self),
                "request_id": request_id,
            }
        }

    def response(self, request_id: str) -> Response:
        """Return the answer."""
        text = json.dumps(self.body(request_id), ensure_ascii=False)
        return Response(text, self.status, self.headers, "application/json")
