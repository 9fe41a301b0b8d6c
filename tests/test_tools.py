"""Tests that lack a tool are skipped, and said to be; in CI they fail."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest
from browser import invalid


@pytest.mark.needs("Go")
def test_that_is_marked(): pass


@pytest.mark.needs("Go", "Node")
def test_that_needs_two(): pass


def test_whose_helper_needs_it(tmp_path): invalid(tmp_path)


def test_that_needs_nothing(): pass
"""


def run_without_tools(folder: Path, **environment: str) -> str:
    """Run those tests where PATH has Python alone; return what pytest prints."""
    here = Path(__file__).parent
    (folder / "test_some.py").write_text(TESTS)
    (folder / "conftest.py").write_text((here / "conftest.py").read_text())
    ini = "-o", f"pythonpath={here}", "-o", "markers=needs"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ini, "test_some.py"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={"PATH": "", "HOME": os.environ["HOME"], **environment},
    ).stdout  # fmt: skip


def test_each_absent_tool_is_named_once_with_the_tests_that_it_skips(tmp_path: Path) -> None:
    """In one line at the end, with the way to get it."""
    output = run_without_tools(tmp_path)
    (line,) = [line for line in output.splitlines() if "for want of" in line]

    assert "1 passed, 3 skipped" in output
    assert "Go: 2 (https://go.dev/dl); Node: 1 (apt-get install nodejs npm" in line


def test_in_ci_nothing_is_skipped(tmp_path: Path) -> None:
    """A test that lacks a tool fails, and says which."""
    output = run_without_tools(tmp_path, CI="true")

    assert "1 failed, 1 passed, 2 errors" in output
    assert "for want of Go" in output
