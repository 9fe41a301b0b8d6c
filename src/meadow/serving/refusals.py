"""Why the service refuses a request or a photo, and the one shape in which it says so."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, Field
from starlette.responses import Response

from meadow.pipeline.formats import NAMES
from meadow.pipeline.image import MIN_SIDE

REQUEST_ID = "[A-Za-z0-9_.:-]{1,64}"


class Reason(NamedTuple):
    """The HTTP status of a refusal, and what it means to a client."""

    status: int
    meaning: str


REASONS = {
    "malformed": Reason(400, "The request is malformed, or no photo is in it"),
    "parameter": Reason(400, "A parameter has a value that is not allowed"),
    "unauthorized": Reason(401, "A key is needed (MEADOW_API_KEY is set)"),
    "feedback_off": Reason(403, "Labels are taken where MEADOW_API_KEY and MEADOW_EVENTS are set"),
    "not_found": Reason(404, "There is nothing at this path"),
    "unknown_id": Reason(404, "The events that are kept have no such answer"),
    "method": Reason(405, "This path takes another method"),
    "slow": Reason(408, "The body took too long"),
    "too_large": Reason(413, "Too many bytes, or too many pixels"),
    "format": Reason(415, f"Not a {', '.join(NAMES)} file"),
    "damaged": Reason(422, "The photo is damaged"),
    "too_small": Reason(422, f"A side of the photo is under {MIN_SIDE} pixels"),
    "busy": Reason(429, "Too many photos wait already"),
    "rate": Reason(429, "Too many requests from this client"),
    "gone": Reason(499, "The client went away; for the log"),
    "fault": Reason(500, "A fault of the service"),
    "memory": Reason(503, "Too many large photos are under way"),
    "timeout": Reason(504, "The answer took too long"),
}
LATER = (429, 503, 504)  # statuses that name the seconds after which to ask again


class Fault(BaseModel):
    """Why there is no answer."""

    code: int = Field(description="the status")
    reason: str = Field(description="one word for programs")
    message: str
    request_id: str = Field(description="also the header X-Request-ID, and in the service's log")


class Error(BaseModel):
    """The body of every answer that is an error."""

    error: Fault


class Refused(Exception):  # noqa: N818  # it is an answer, not a fault
    """A request, or a photo of one, that gets an error; `reason` is a key of `REASONS`."""

    def __init__(self, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = REASONS[reason].status
        self.headers = dict(headers or {})
        if self.status in LATER:
            self.headers.setdefault("Retry-After", "1")

    def body(self, request_id: str) -> Error:
        """Return what is sent."""
        fault = Fault(
            code=self.status, reason=self.reason, message=str(self), request_id=request_id
        )
        return Error(error=fault)

    def response(self, request_id: str) -> Response:
        """Return the answer."""
        text = self.body(request_id).model_dump_json()
        return Response(text, self.status, self.headers, "application/json")
