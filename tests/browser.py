"""A real Chromium that looks at Meadow's pages as their readers do.

Debian's Chromium, driven by Playwright; axe-core (accessibility) and html-validate (markup) come
from `npm ci --prefix tests`.
"""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser as Chromium
from playwright.sync_api import ConsoleMessage, Page, sync_playwright
from tools import CHROMIUM, MODULES, need

DESKTOP, PHONE = (1280, 800), (390, 844)
# Chromium may not even look a name up: the loopback is all that there is.
OPTIONS = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"]


class Browser:
    """Opens pages; `started` makes one."""

    def __init__(self, chromium: Chromium) -> None:
        self.chromium = chromium

    @contextmanager
    def visit(
        self,
        address: Path | str,
        *,
        size: tuple[int, int] = DESKTOP,
        scheme: Literal["light", "dark"] = "light",
        refused: Sequence[str] = (),
        warned: bool = False,
        **context: Any,
    ) -> Iterator[Page]:
        """Open a page; on leaving, it must have said and loaded nothing that it should not.

        Args:
            address: an HTML file, or a URL.
            size: of the window, CSS pixels.
            scheme: what the reader prefers.
            refused: paths on the page's own host that may answer 4xx, 5xx or not at all.
            warned: whether its scripts, where they are another project's, may warn.
            context: options of Playwright's new_context, such as `has_touch=True`.

        Raises:
            AssertionError: an error on the console, an uncaught exception, an answer that is an
                error, or a request for another host (for a file: for another file).

        """
        url = address.resolve().as_uri() if isinstance(address, Path) else address
        width, height = size
        opened = self.chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **context
        )
        wrong: list[str] = []

        def judge(what: str, address: str, *, well: bool = False) -> None:
            if not well and urlsplit(address).path not in refused:
                wrong.append(f"{what}: {address}")

        page = opened.new_page()
        page.on("request", lambda each: judge("leaves", each.url, well=not _left(each.url, url)))
        page.on("requestfailed", lambda each: judge("failed", each.url))
        page.on(
            "response",
            lambda each: judge(f"status {each.status}", each.url, well=each.status < 400),
        )
        page.on("pageerror", lambda error: wrong.append(f"uncaught: {error}"))

        bad = {"error"} if warned else {"error", "warning"}

        def said(message: ConsoleMessage) -> None:
            # a failed request is judged above; this is the browser's own line on it
            own = message.text.startswith("Failed to load resource")
            if message.type in bad and not own:
                wrong.append(f"console: {message.text}")

        page.on("console", said)
        try:
            page.goto(url)
            yield page
            assert not wrong, wrong
        finally:
            opened.close()


@contextmanager
def started() -> Iterator[Browser]:
    """Start a Chromium, and end it."""
    need("Chromium", "Node")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=OPTIONS, chromium_sandbox=os.geteuid() != 0
        )
        yield Browser(chromium)
        chromium.close()


def _left(request: str, page: str) -> bool:
    asked, own = urlsplit(request), urlsplit(page)
    if asked.scheme in {"data", "blob"}:
        return False
    if own.scheme == "file":
        return (asked.scheme, asked.path) != (own.scheme, own.path)
    return (asked.scheme, asked.netloc) != (own.scheme, own.netloc)


def violations(page: Page) -> list[str]:
    """Say what axe finds against the page as it is now: WCAG 2.2 AA and axe's best practices."""
    page.evaluate((MODULES / "axe-core/axe.min.js").read_text("utf-8") + "; undefined")
    found = page.evaluate("axe.run()")
    return [
        f"{rule['id']} ({rule['impact']}): {rule['help']}: {node['html']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def too_wide(page: Page) -> bool:
    """Return whether the page scrolls sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def invalid(page: Path) -> list[str]:
    """Say what html-validate finds against an HTML file: the standard, and its rules for ARIA."""
    need("Node")
    done = subprocess.run(
        [
            MODULES / ".bin/html-validate", "--formatter=json",
            f"--config={Path(__file__).with_name('htmlvalidate.json')}", page,
        ],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    return [
        f"line {message['line']}: {message['ruleId']}: {message['message']}"
        for file in json.loads(done.stdout)
        for message in file["messages"]
    ]
