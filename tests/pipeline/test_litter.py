"""What is read is what is versioned."""

import os
from pathlib import Path

import pytest
from dvc.ignore import DvcIgnorePatterns

from meadow.pipeline.litter import LITTER, is_litter

DVCIGNORE = (Path(__file__).parents[2] / ".dvcignore").read_text("utf-8").splitlines()
NAMES = {
    ".DS_Store": True,
    "._1.jpg": True,
    ".git": True,
    "Thumbs.db": True,
    "thumbs.db": True,
    "desktop.ini": True,
    "Icon\r": True,
    "@eaDir": True,
    "#recycle": True,
    "$RECYCLE.BIN": True,
    "$Recycle.Bin": True,
    "System Volume Information": True,
    "__MACOSX": True,
    "1.jpg.part": True,
    "1.jpg.crdownload": True,
    "1.jpg~": True,
    "1.jpg": False,
    "Icons": False,
    "Icon1": False,
    "a.b": False,
    "part": False,
    "recycle": False,
    "$": False,
    "notes.txt": False,
    "L\u00f6wenzahn": False,
}


def test_dvc_passes_over_what_meadow_passes_over() -> None:
    """Litter that DVC hashes would make a new data set of the same photos."""
    assert [line for line in DVCIGNORE if not line.startswith("#")] == list(LITTER)


@pytest.mark.parametrize("name", NAMES)
def test_both_read_the_patterns_alike(name: str) -> None:
    """Names and folders; whole names, not parts of them."""
    root = str(Path("project").absolute())
    patterns = DvcIgnorePatterns(DVCIGNORE, root, os.sep)
    photos = str(Path(root, "data/raw/rose"))

    assert is_litter(name) is NAMES[name]
    assert patterns.matches(photos, name, is_dir=False) is NAMES[name]
    assert patterns.matches(photos, name, is_dir=True) is NAMES[name]
