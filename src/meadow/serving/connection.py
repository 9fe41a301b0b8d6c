"""Work for a client is done as long as the client waits for it."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

from meadow.serving.refusals import Refused

T = TypeVar("T")


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await the work, and drop it when its client goes away or time is up.

    Raises:
        ClientDisconnect: the client went away.
        Refused: time is up.

    """
    seconds = request.app.state.answering.settings.timeout
    gone = asyncio.ensure_future(request.receive())  # the body is read: only the end can come
    try:
        async with asyncio.timeout(seconds) as limit:
            gone.add_done_callback(partial(_hung_up, limit))
            return await work
    except TimeoutError:
        if gone.done():
            raise ClientDisconnect from None
        raise Refused("timeout", f"no answer within {seconds:g} s") from None
    finally:
        gone.cancel()


def _hung_up(limit: asyncio.Timeout, gone: asyncio.Future[Any]) -> None:
    if not gone.cancelled():
        with suppress(RuntimeError):  # the work has just ended
            limit.reschedule(0)
