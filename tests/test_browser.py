"""The judges of the pages must themselves be able to say no."""

from pathlib import Path

import pytest
from browser import PHONE, Browser, invalid, too_wide, violations

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>t</title><link rel="icon" href="data:,">
<main><h1>t</h1>{}</main></html>
"""


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("<script>console.error('oh')</script>", "console: oh"),
        ("<script>nothing()</script>", "uncaught: nothing is not defined"),
        ("<img alt='' src='https://example.org/x.png'>", "leaves: https://example.org/x.png"),
        ("<img alt='' src='other.png'>", "leaves: file:"),
    ],
)
def test_a_page_that_errs_or_asks_elsewhere_is_noticed(
    browser: Browser, tmp_path: Path, content: str, complaint: str
) -> None:
    """Without a word in the test of that page."""
    (tmp_path / "page.html").write_text(PAGE.format(content))
    with (
        pytest.raises(AssertionError, match=complaint),
        browser.visit(tmp_path / "page.html") as page,
    ):
        page.wait_for_load_state("networkidle")


def test_a_good_page_passes(browser: Browser, tmp_path: Path) -> None:
    """A judge that always says no is none."""
    (tmp_path / "page.html").write_text(PAGE.format("<p>Text.</p>"))
    with browser.visit(tmp_path / "page.html", size=PHONE) as page:
        assert violations(page) == []
        assert not too_wide(page)
    assert invalid(tmp_path / "page.html") == []


def test_bad_contrast_markup_and_width_are_noticed(browser: Browser, tmp_path: Path) -> None:
    """In the scheme that the reader prefers."""
    style = "<style>@media (prefers-color-scheme: dark) { p { color: #ddd } }</style>"
    (tmp_path / "page.html").write_text(PAGE.format(f"{style}<p>Pale text.<p><img src='data:,'>"))
    with browser.visit(tmp_path / "page.html") as page:
        assert [each for each in violations(page) if "color-contrast" in each] == []
    with browser.visit(tmp_path / "page.html", scheme="dark", size=PHONE) as page:
        found = violations(page)
        assert any("color-contrast" in each for each in found)
        assert any("image-alt" in each for each in found)
        page.evaluate("document.querySelector('h1').style.width = '900px'")
        assert too_wide(page)
    assert any("wcag/h37" in each for each in invalid(tmp_path / "page.html"))
