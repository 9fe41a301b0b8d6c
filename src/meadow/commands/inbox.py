"""`meadow data inbox`: a page on this machine to label the photos that the service kept.

It answers on the loopback alone, to who has its address: a random part of it is the key.
"""

import json
import os
import secrets
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from meadow.commands import inbox_folder
from meadow.commands.inbox_folder import Kept
from meadow.errors import MeadowError
from meadow.pipeline.intervals import wilson
from meadow.pipeline.ports import free_port
from meadow.serving import pages

STATIC = Path(__file__).with_name("static")
FILES = {
    "/": STATIC / "inbox.html",
    "/inbox.css": STATIC / "inbox.css",
    "/inbox.js": STATIC / "inbox.js",
    "/page.css": pages.STATIC / "page.css",
}
LISTED = 500  # photos that the page gets at once
MAX_BODY = 4096  # bytes
REFUSED = 10  # labels that are named
SHOWN = ("request_id", "time", "kept", "label", "probabilities", "prediction_set")


class Inbox:
    """The photos of a folder, and what people say of them.

    Args:
        folder: of kept photos.

    Raises:
        MeadowError: see `inbox_folder.photos`; or there is none.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.Lock()
        self.labels = inbox_folder.labels(folder)
        self.session: set[str] = set()  # photos decided on since the start
        self.look()
        if not self.photos:
            raise MeadowError(
                f"{folder} has no photos that the service kept. Set MEADOW_KEEP and MEADOW_KEEP_DIR"
                " of the service, and wait for some."
            )

    def look(self) -> None:
        """Look which photos are there."""
        self.photos = {photo.name: photo for photo in inbox_folder.photos(self.folder)}
        abouts = [photo.about for photo in self.photos.values()]
        self.classes = sorted({name for about in abouts for name in about["probabilities"]})

    def waiting(self) -> list[Kept]:
        """List the photos on which nobody has decided yet."""
        return [photo for name, photo in self.photos.items() if name not in self.labels]

    def decide(self, name: str, label: str | None) -> None:
        """Write down the label of a photo at once; "" drops it, None takes a decision back."""
        with self.lock:
            labels = dict(self.labels)
            labels.pop(name, None)
            if label is not None:
                labels[name] = label
            inbox_folder.write(self.folder, labels)
            self.labels = labels
            self.session.add(name)

    def state(self) -> dict[str, Any]:
        """Return how far the work is, and how many of the answers drawn by chance were right."""
        drawn = [
            (photo.about["label"], label)
            for name, label in self.labels.items()
            if label and (photo := self.photos.get(name)) and photo.random
        ]
        correct = sum(answered == label for answered, label in drawn)
        low, high = wilson(correct, len(drawn))
        return {
            "photos": len(self.photos),
            "decided": len(self.labels.keys() & self.photos.keys()),
            "drawn": len(drawn),
            "correct": correct,
            "low": low,
            "high": high,
        }


def create(inbox: Inbox, key: str) -> Starlette:
    """Return the page as an application, below the path `/key/`."""

    async def listed(_: Request) -> Response:
        inbox.look()
        waiting = [
            {"name": photo.name, **{name: photo.about[name] for name in SHOWN}}
            for photo in inbox.waiting()[:LISTED]
        ]
        return JSONResponse({**inbox.state(), "classes": inbox.classes, "waiting": waiting})

    async def photo(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in inbox.photos or not (inbox.folder / name).is_file():
            raise HTTPException(404)
        return FileResponse(inbox.folder / name, headers=pages.HEADERS)

    async def label(request: Request) -> Response:
        given = await _json(request)
        name, chosen = given.get("photo"), given.get("label")
        if name not in inbox.photos or chosen not in (None, "", *inbox.classes):
            raise HTTPException(400)
        inbox.decide(name, chosen)
        return JSONResponse(inbox.state())

    routes = [Route(f"/{key}{path}", pages.page(file)) for path, file in FILES.items()]
    routes += [
        Route(f"/{key}/photos", listed),
        Route(f"/{key}/photos/{{name}}", photo),
        Route(f"/{key}/label", label, methods=["POST"]),
    ]
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    return Starlette(routes=routes, middleware=[hosts])


async def _json(request: Request) -> dict[str, Any]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413)
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    if not isinstance(given, dict):
        raise HTTPException(400)
    return given


def send(photos: Inbox, url: str) -> None:
    """Send the labels that were given since the start to the service, and print what it took.

    Raises:
        MeadowError: it takes none; see `Client.label`.

    """
    from meadow.serving.client import Client, RefusedError  # with httpx: 0.1 s

    sent, refused = 0, []
    with Client(url) as client:
        for name in sorted(photos.session):
            if (label := photos.labels.get(name)) and (photo := photos.photos.get(name)):
                about = photo.about
                try:
                    client.label(about["request_id"], about["photo"], label)
                    sent += 1
                except RefusedError as error:
                    refused.append(f"{about['request_id']}: {error.error['message']}")
    print(f"{url} took {sent} labels and refused {len(refused)}", *refused[:REFUSED], sep="\n  ")


def inbox(folder: Path | None, port: int | None, url: str | None) -> None:
    """Show the page until Ctrl-C.

    Args:
        folder: of kept photos; None is MEADOW_KEEP_DIR.
        port: on the loopback; None takes a free one.
        url: of the service that gets the labels at the end, or None.

    Raises:
        MeadowError: no folder is named, the port is taken; or see `Inbox` and `send`.

    """
    import uvicorn

    folder = folder or Path(os.environ.get("MEADOW_KEEP_DIR", ""))
    if folder == Path():
        raise MeadowError("no folder is named: write `meadow data inbox DIR`.")
    photos, key, port = Inbox(folder), secrets.token_urlsafe(16), port or free_port()
    print(f"http://127.0.0.1:{port}/{key}/ shows {len(photos.waiting())} photos. Ctrl-C ends it.")
    print(f"{folder / inbox_folder.LABELS} gets the labels.", flush=True)
    config = uvicorn.Config(
        create(photos, key), host="127.0.0.1", port=port, log_level="error", access_log=False
    )
    try:
        uvicorn.Server(config).run()
    except SystemExit:  # uvicorn has said why
        raise MeadowError(f"port {port} cannot be had. Name another: `--port`.") from None
    except KeyboardInterrupt:
        pass
    if url:
        send(photos, url)
    state = photos.state()
    print(
        f"{state['decided']} of {state['photos']} photos are decided on. Next: `meadow data import"
        f" --add {folder}`, then `dvc repro`."
    )
