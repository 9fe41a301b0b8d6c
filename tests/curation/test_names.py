"""A set has names that every system can hold."""

from pathlib import Path

import pytest

from meadow.curation import names
from meadow.errors import MeadowError

BAD = {
    "gras\rs/1.jpg": r"'gras\rs' has a control character",
    "grass/1\n.jpg": r"'1\n.jpg' has a control character",
    "grass /1.jpg": "'grass ' ends with a space or a dot",
    "grass./1.jpg": "'grass.' ends with a space or a dot",
    "grass/12:30.jpg": "'12:30.jpg' has :",
    'grass/a"?.jpg': """'a"?.jpg' has " ?""",
    "aux/1.jpg": "'aux' is a device of Windows",
    "grass/COM1.jpg": "'COM1.jpg' is a device of Windows",
    "grass/\udcff.jpg": "'\ufffd.jpg' is not UTF-8",
    f"grass/{'x' * 256}": "is too long: over 255 bytes",
    "grass/" + "/".join(["abcdefgh" * 16] * 10): "is too long: over 1000 bytes",
}
TWINS = [
    (("grass/1.jpg", "Grass/2.jpg"), "'grass' and 'Grass' differ in case alone"),
    (("grass/1.jpg", "grass/1.JPG"), "'grass/1.jpg' and 'grass/1.JPG' differ in case alone"),
    (("gr\u00e4s/1.jpg", "gra\u0308s/1.jpg"), r"'gr\xe4s' and 'gra\u0308s' are one name"),
    (("grass/1.jpg", "grass/1.jpg"), "'grass/1.jpg' is there twice"),
    (("grass/1.jpg", "grass/1.jpg/2.jpg"), "'grass/1.jpg' is there twice"),
]
GOOD = ["grass/1.jpg", "L\u00f6wenzahn/1.jpg", "a.b/.c d", "auxiliary/com.jpg", "\u84b2/com10.jpg"]


def test_all_bad_names_are_said_at_once() -> None:
    """Who has many must not meet them one import at a time."""
    with pytest.raises(MeadowError) as caught:
        names.check(Path("mine"), [*GOOD, *BAD])
    assert all(words in str(caught.value) for words in BAD.values())
    assert not any(path in str(caught.value) for path in GOOD)


@pytest.mark.parametrize(("paths", "words"), TWINS)
def test_twins_are_shown_so_that_they_can_be_told_apart(paths: tuple[str, ...], words: str) -> None:
    """On macOS and Windows one of the two would be lost."""
    with pytest.raises(MeadowError) as caught:
        names.check(Path("mine"), paths)
    assert words in str(caught.value)
    assert str(caught.value).count("\n  ") == 1


def test_good_names_pass() -> None:
    """In any script, and with a device's name in a longer one."""
    names.check(Path("mine"), GOOD)


def test_a_long_list_is_cut() -> None:
    """Thousands of names would hide what to do with them."""
    with pytest.raises(MeadowError, match="and 980 more\nRename") as caught:
        names.check(Path("mine"), [f"grass/{number}." for number in range(1000)])
    assert len(str(caught.value).splitlines()) == names.LISTED + 3
