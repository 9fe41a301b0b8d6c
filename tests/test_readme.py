"""The README and the docs: prose that no test reads goes stale."""

import re
import shlex
from pathlib import Path

import pytest

from meadow.cli import _parser
from meadow.curation import discovery
from meadow.pipeline import image
from meadow.serving.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench/RESULTS.md"]
TARGETS = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> list[str]:
    """Return the commands of all code blocks of the README."""
    found = []
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", README, re.DOTALL):
        lines = [line for line in block.splitlines() if line.strip()]
        if kind == "console":
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        found += [line.partition("#")[0].strip() for line in lines]
    return found


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_exists(command: str) -> None:
    """Make targets and Meadow's own commands are parsed as they stand; DVC's run in other tests."""
    for part in command.split("&&"):
        program, *arguments = shlex.split(part)
        if program == "make":
            assert set(arguments) <= TARGETS
        elif program == "meadow":
            _parser(Path()).parse_args(arguments)
        else:
            assert program in {"dvc", "curl", "git", "source", "cp", "mv"}, program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_is_one_page() -> None:
    """The rest is in docs/."""
    assert len(README.splitlines()) <= 150
    assert "TODO" not in README


def test_the_documented_limits_are_those_of_the_code() -> None:
    """The photo contract."""
    assert f"at most {image.MAX_PIXELS // 10**6} megapixels" in README
    assert f"2 to {discovery.MAX_CLASSES} classes" in README
    page = (ROOT / "src/meadow/serving/static/docs.html").read_text()
    assert (settings := Settings()).max_body == 20 * 2**20
    assert settings.max_pixels == image.MAX_PIXELS
    assert f"20&nbsp;MiB and {image.MAX_PIXELS // 10**6}&nbsp;megapixels" in page
