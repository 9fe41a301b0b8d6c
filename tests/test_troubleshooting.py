"""docs/troubleshooting.md quotes messages; one that nobody prints any more helps nobody."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/troubleshooting.md").read_text()
QUOTED = re.findall(r"^\| `(.*?)` \|", PAGE, re.MULTILINE)
OF_GIT = ["detected dubious ownership"]


def text(node: ast.AST) -> str:
    """Return a text of the source, with dots for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    assert isinstance(node, ast.JoinedStr)
    return "".join(text(part) if isinstance(part, ast.Constant) else "..." for part in node.values)


TEXTS = [
    text(node)
    for path in (ROOT / "src").rglob("*.py")
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant | ast.JoinedStr)
]


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_is_quoted_as_it_is_printed(message: str) -> None:
    """Word for word."""
    assert message in OF_GIT or any(message in text for text in TEXTS)


def test_it_is_ten_messages_on_one_screen() -> None:
    """A longer page is not read by somebody in trouble."""
    assert len(QUOTED) == 10
    assert len(PAGE.splitlines()) < 25


def test_the_readme_leads_there() -> None:
    """And so somebody finds it."""
    assert "(docs/troubleshooting.md)" in (ROOT / "README.md").read_text()
