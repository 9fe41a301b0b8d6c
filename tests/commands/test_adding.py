"""New photos in a set that is there: each once, under its own name, and nothing else changes."""

import hashlib
from pathlib import Path

import pytest
from sources import ROSE, TULIP, TWO, contents, in_folder, photo, refused

from meadow.commands import importing
from meadow.curation import discovery, overrides


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # data/overrides.csv is read from here
    return in_folder(tmp_path / "data/raw", TWO)


def test_photos_that_are_not_there_are_added(tmp_path: Path, target: Path) -> None:
    """A name that is taken gets another end, a photo that is there is passed over."""
    new = photo(7)
    source = in_folder(tmp_path / "inbox", {"rose/again.jpg": TWO[ROSE], ROSE: new})
    name = f"rose/1-{hashlib.sha256(new).hexdigest()[:8]}.jpg"
    for _ in range(2):  # a second time nothing is new
        importing.import_set(source, target, add=True)

        assert contents(target) == {**TWO, name: new}
    assert [path.name for path in target.parent.iterdir()] == ["raw"]


@pytest.mark.parametrize("name", ["rose/monday/2.jpg", "lily/2.jpg"])
def test_one_class_alone_may_come(name: str, tmp_path: Path, target: Path) -> None:
    """In folders below that of the class, too; and a new class."""
    importing.import_set(in_folder(tmp_path / "inbox", {name: photo(7)}), target, add=True)

    assert contents(target) == {**TWO, name: photo(7)}


def test_the_label_may_be_in_a_table(tmp_path: Path, target: Path) -> None:
    source = in_folder(tmp_path / "inbox", {"7.jpg": photo(7)})
    (source / "labels.csv").write_text("photo,label\n7.jpg,rose\n")
    importing.import_set(source, target, labels=source / "labels.csv", add=True)

    assert contents(target) == {**TWO, "rose/7.jpg": photo(7)}


def test_another_label_is_refused_and_nothing_is_added(tmp_path: Path, target: Path) -> None:
    """Of a photo in the set, and of one that comes twice."""
    wrong = in_folder(tmp_path / "wrong", {"tulip/3.jpg": TWO[ROSE], "rose/7.jpg": photo(7)})
    twice = in_folder(tmp_path / "twice", {"tulip/7.jpg": photo(7), "rose/7.jpg": photo(7)})

    assert "another label than they have (1): 'rose/1.jpg'" in refused(wrong, target, add=True)
    assert "another label than they have (1): 'tulip/7.jpg'" in refused(twice, target, add=True)
    assert contents(target) == TWO


def test_decisions_of_people_count(tmp_path: Path, target: Path) -> None:
    """A relabelled photo comes with its new label, a dropped one stays dropped."""
    files = discovery.find(target)
    overrides.decide(target, files, [ROSE], "relabel", "tulip")
    overrides.decide(target, files, [TULIP], "drop", "")
    source = in_folder(tmp_path / "inbox", {"tulip/5.jpg": TWO[ROSE], "rose/6.jpg": TWO[TULIP]})
    importing.import_set(source, target, add=True)

    assert contents(target) == TWO


def test_names_that_not_every_system_holds_are_refused(tmp_path: Path, target: Path) -> None:
    """Two classes that differ in case alone, where the other one was there before."""
    source = in_folder(tmp_path / "inbox", {"Rose/2.jpg": photo(7)})

    assert "'Rose'" in refused(source, target, add=True)
