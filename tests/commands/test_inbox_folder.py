"""From an inbox into the set: what was drawn by chance may be tested, the rest is trained on."""

import json
from pathlib import Path
from zipfile import ZipFile

import pytest
from sources import photo, refused

from meadow.commands import importing, inbox_folder
from meadow.curation import discovery
from meadow.errors import MeadowError

NAMES = {
    "a-000000000001.jpg": ["unsure"], "b-000000000002.jpg": ["far", "random"],
    "c-000000000003.png": ["far"], "d-000000000004.jpg": ["random"], "e-000000000005.jpg": ["far"],
}  # fmt: skip
LABELS = dict(zip(NAMES, ("rose", "tulip", "rose", ""), strict=False))


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return five photos, of which two are labelled rose, one tulip, one dropped."""
    monkeypatch.chdir(tmp_path)  # data/overrides.csv is read from here
    folder = tmp_path / "kept"
    folder.mkdir()
    for number, (name, why) in enumerate(NAMES.items()):
        (folder / name).write_bytes(photo(number))
        (folder / name).with_suffix(".json").write_text(json.dumps({"kept": why}))
    inbox_folder.write(folder, LABELS)
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "data/raw"
    for number, label in enumerate(("rose", "tulip")):
        (target / label).mkdir(parents=True)
        (target / label / "1.jpg").write_bytes(photo(100 + number))
    return target


PLACES = [
    "rose/1.jpg", "rose/train-only/a-000000000001.jpg", "rose/train-only/c-000000000003.png",
    "tulip/1.jpg", "tulip/b-000000000002.jpg",
]  # fmt: skip


@pytest.mark.parametrize("labels", [None, "labels.csv"])
def test_photos_chosen_by_the_model_come_for_training_alone(
    inbox: Path, target: Path, labels: str | None
) -> None:
    """By the labels that lie there, and by those that are named; a second time nothing is new."""
    (inbox.parent / "labels.csv").write_text("a table that is another's")
    for _ in range(2):
        table = inbox / labels if labels else None
        importing.import_set(inbox, target, labels=table, add=True)
        files = discovery.find(target)
        assert [file.path for file in files] == PLACES
    assert [file.train_only for file in files] == [False, True, True, False, False]


def test_an_inbox_may_come_as_a_zip(inbox: Path, target: Path) -> None:
    """As it comes from the machine that serves."""
    with ZipFile(inbox.parent / "kept.zip", "w") as archive:
        for file in inbox.iterdir():
            archive.write(file, file.name)
    importing.import_set(inbox.parent / "kept.zip", target, add=True)

    assert [file.path for file in discovery.find(target)] == PLACES


def test_without_why_a_photo_was_kept_it_does_not_come(inbox: Path, target: Path) -> None:
    """It might be tested, and should not."""
    next(inbox.glob("a-*.json")).write_text("{}")

    assert "is not what the service writes" in refused(inbox, target, add=True)


def test_labels_are_written_whole_and_read_as_they_were(tmp_path: Path) -> None:
    """Names of classes may hold what a table is made of."""
    labels = {"a.jpg": 'a, "b"\r\nc', "b.jpg": "", "c.jpg": "é"}
    inbox_folder.write(tmp_path, labels)
    assert inbox_folder.labels(tmp_path) == labels
    inbox_folder.unlabel(tmp_path, ["a", "c"])
    assert inbox_folder.labels(tmp_path) == {"b.jpg": ""}
    (tmp_path / "labels.csv").write_text("photo,label\na.jpg\n")
    with pytest.raises(MeadowError, match="has not the columns"):
        inbox_folder.labels(tmp_path)
