"""The files of the service's pages: its own, and Swagger UI, which loads nothing from elsewhere."""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

STATIC = Path(__file__).with_name("static")
SWAGGER = Path(str(files("fastapi_offline"))) / "static"
PAGES = {
    "/": STATIC / "page.html",
    "/page.css": STATIC / "page.css",
    "/page.js": STATIC / "page.js",
    "/docs": STATIC / "docs.html",
    "/docs.js": STATIC / "docs.js",
    "/swagger-ui.css": SWAGGER / "swagger-ui.css",
    "/swagger-ui-bundle.js": SWAGGER / "swagger-ui-bundle.js",
}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


def page(file: Path) -> Callable[[Request], Awaitable[Response]]:
    """Return a route's function that sends a file, which is read now."""
    content = file.read_bytes()

    async def send(_: Request) -> Response:
        return Response(content, headers=HEADERS, media_type=KINDS[file.suffix])

    return send
