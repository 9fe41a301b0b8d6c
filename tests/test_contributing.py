"""CONTRIBUTING.md and the checks before a commit: what they say is so."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from imports import imported, modules

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PACKAGES = {path.parent.name for path in (SOURCE / "meadow").glob("*/__init__.py")}


def arrows() -> set[tuple[str, str]]:
    """Return which package imports which, without those that follow from two others."""
    above = {package: set[str]() for package in PACKAGES}
    for module in modules(SOURCE):
        for name in imported(module, SOURCE):
            one, other = (f"{dotted}.".split(".")[1] for dotted in (module, name))
            if one != other and {one, other} <= PACKAGES:
                above[one].add(other)

    def reach(package: str) -> set[str]:
        return above[package].union(*map(reach, above[package]))

    return {
        (package, other)
        for package, others in above.items()
        for other in others
        if not any(other in reach(between) for between in others)
    }


def test_the_map_is_drawn_as_the_imports_are() -> None:
    """Every arrow is an import, and no import is missing."""
    (picture,) = re.findall(r"```mermaid\n(.*?)```", TEXT, re.DOTALL)
    drawn = re.findall(r"^ +(\w+) --> (\w+)$", picture, re.MULTILINE)

    assert sorted(drawn) == sorted(arrows())


def test_the_map_has_a_line_for_every_package() -> None:
    """And for no other."""
    assert set(re.findall(r"^\| `(\w+)/` \|", TEXT, re.MULTILINE)) == PACKAGES


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+/[\w./-]*|\w+\.\w+)`", TEXT))))
def test_a_file_that_it_names_exists(path: str) -> None:
    """From the root, or below src/meadow."""
    assert (ROOT / path).exists() or (SOURCE / "meadow" / path).exists()


def test_it_is_one_page() -> None:
    """What is longer belongs into docs/."""
    assert len(TEXT.splitlines()) <= 130


def test_a_commit_is_checked_as_make_lint_checks() -> None:
    """The same commands, in the same order; pre-commit fetches nothing."""
    makefile = (ROOT / "Makefile").read_text()
    (lint,) = re.findall(r"^lint:.*\n\t(.*)", makefile, re.MULTILINE)
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (local,) = config["repos"]

    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == lint.split(" && ")
    assert {hook["language"] for hook in local["hooks"]} == {"system"}


def test_make_alone_shows_the_help() -> None:
    """One line for each target that a person may give."""
    shown = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)

    assert [line.split()[0] for line in shown.splitlines()] == targets
