"""What becomes of an error: a refusal with its reason, or a fault."""

from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from meadow.pipeline.image import PhotoError
from meadow.serving.refusals import Refused


def refusal(request: Request, error: BaseException) -> Refused:
    """Return what an error is to the client."""
    path = request.url.path[:100]
    match error:
        case Refused():
            refused = error
        case PhotoError():
            refused = Refused(error.reason, str(error))
        case HTTPException(status_code=405, headers=headers):
            refused = Refused("method", f"{path} takes {(headers or {}).get('Allow')}", headers)
        case HTTPException():
            refused = Refused("not_found", f"there is nothing at {path}; see /docs")
        case RequestValidationError():
            first = error.errors()[0]
            given = f"{first['loc'][-1]}={str(first.get('input'))[:20]!r}"
            refused = Refused("parameter", f"{given}: {first['msg']}")
        case ClientDisconnect():
            refused = Refused("gone", "the client went away")
        case _:
            refused = Refused("fault", "a fault of the service")
    return refused


async def _refused(request: Request, error: Exception) -> Response:
    refused = refusal(request, error)
    request.state.log["reason"] = refused.reason
    return refused.response(request.state.id)


ERRORS = (
    Refused, PhotoError, HTTPException, RequestValidationError, ClientDisconnect, Exception
)  # fmt: skip
HANDLERS: dict[Any, Any] = dict.fromkeys(ERRORS, _refused)
