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


USED = [ROOT / name for name in ("README.md", "docs/photos.md", "docs/versions.md")]


def commands() -> list[str]:
    """Return the commands of all code blocks of the pages that lead a user from set to version."""
    blocks = [
        block
        for page in USED
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return sorted({line for line in lines if line})


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
            assert program in {"aws", "dvc", "curl", "git", "source", "cp", "mv", "cd"}, program


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """To a file of the project."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_readme_is_one_page() -> None:
    """The rest is in docs/."""
    assert len(README.splitlines()) <= 100
    assert "TODO" not in README


def test_the_documented_limits_are_those_of_the_code() -> None:
    """The photo contract."""
    for page in (README, (ROOT / "docs/photos.md").read_text()):
        assert f"at most {image.MAX_PIXELS // 10**6} megapixels" in page
        assert f"2 to {discovery.MAX_CLASSES} classes" in page
    assert (settings := Settings()).max_body == 20 * 2**20
    assert settings.max_pixels == image.MAX_PIXELS
