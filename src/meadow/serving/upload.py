"""The photos of a request: from its body, or from the files of a form.

BentoML's own image input answers 500 to most bad photos and fetches URLs that a client names;
here a body is bytes, whatever it says of itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from meadow.serving.refusals import Refused

FORM = "multipart/form-data"
PHOTOS = 16  # of a batch
FIELDS = 4


async def one(request: Request, seconds: float) -> bytes:
    """Return the bytes of one photo: the multipart field `file`, or the whole body.

    Args:
        request: its body is limited by the guard.
        seconds: that the body may take.

    Raises:
        Refused: there is none, or it is too slow.

    """
    if not _is_form(request):
        async with _within(seconds):
            return await request.body()
    (photo,) = await _files(request, "file", 1, seconds)
    return photo


async def several(request: Request, seconds: float) -> list[bytes]:
    """Return the bytes of up to `PHOTOS` photos, the multipart fields `files`.

    Raises:
        Refused: there are none or more, or they are too slow.

    """
    if not _is_form(request):
        raise Refused("malformed", f"a batch is {FORM} with up to {PHOTOS} fields 'files'")
    return await _files(request, "files", PHOTOS, seconds)


async def small(request: Request, most: int, seconds: float) -> bytes:
    """Return a body that is no photo.

    Raises:
        Refused: it has more than `most` bytes, or is too slow.

    """
    body = b""
    async with _within(seconds):
        async for part in request.stream():
            body += part
            if len(body) > most:
                raise Refused("too_large", f"the body has more than {most:,} bytes")
    return body


def _is_form(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0]
    return kind.strip().lower() == FORM


async def _files(request: Request, field: str, most: int, seconds: float) -> list[bytes]:
    parser = MultiPartParser(request.headers, request.stream(), max_files=most, max_fields=FIELDS)
    parser.spool_max_size = 2**62  # the guard limits the body; nothing is written to disk
    try:
        async with _within(seconds):
            form = await parser.parse()
    except (MultiPartException, HTTPException, KeyError, ValueError) as error:
        raise Refused("malformed", f"malformed multipart body: {_words(error)}") from None
    try:
        files = [value for value in form.getlist(field) if isinstance(value, UploadFile)]
        if not files:
            fields = ", ".join(sorted(form)) or "none"
            message = f"no photo in the multipart field '{field}'; fields: {fields[:200]}"
            raise Refused("malformed", message)
        return [await file.read() for file in files]
    finally:
        await form.close()


def _words(error: Exception) -> str:
    if isinstance(error, MultiPartException):
        return error.message
    return "no boundary" if isinstance(error, KeyError) else str(error)


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        message = f"the body took more than {seconds:g} s"
        raise Refused("slow", message, {"Connection": "close"}) from None
