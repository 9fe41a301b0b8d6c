import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from toys import SetParams, encoded

from meadow.cli import main
from meadow.curation import overrides
from meadow.errors import MeadowError
from meadow.pipeline import manifest
from meadow.prepare import prepare

ROOT = Path(__file__).parents[2]
HEADER = "path,decision,label,sha256"


def decide(*lines: str) -> None:
    overrides.FILE.write_text("\n".join([HEADER, *lines, ""]))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def left_out() -> dict[str, str]:
    with Path("data/prepared/left_out.csv").open(encoding="utf-8", newline="") as file:
        return {record["path"]: record["reason"] for record in csv.DictReader(file)}


def figures() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("metrics/prepare.json").read_text())
    return content


def test_the_committed_list_is_empty() -> None:
    """The demo needs no decision; the file is there because stage prepare depends on it."""
    assert (ROOT / overrides.FILE).read_text() == HEADER + "\n"


def test_decisions_are_applied_and_counted(toy_set: Path) -> None:
    """A dropped photo is left out by name, a relabelled one stays where it lies."""
    prepare()
    before = {row.path: row for row in manifest.load().rows}
    decide(
        f"gold/003.jpg,drop,,{sha256(toy_set / 'gold/003.jpg')}",
        f"gold/004.jpg,relabel,moss,{sha256(toy_set / 'gold/004.jpg')}",
    )
    prepare()
    after = {row.path: row for row in manifest.load().rows}

    assert set(before) - set(after) == {"gold/003.jpg"}
    assert left_out() == {"gold/003.jpg": "dropped"}
    assert {path for path in after if after[path] != before[path]} == {"gold/004.jpg"}
    assert after["gold/004.jpg"].label == "moss"
    assert figures()["found"] == 32
    assert figures()["left_out"] == {"total": 1, "dropped": 1}
    assert figures()["overrides"] == {"dropped": 1, "relabelled": 1}


@pytest.mark.parametrize("content", [None, HEADER, f"\ufeff{HEADER}\r\n\r\n"])
def test_no_decisions_change_nothing(toy_set: Path, content: str | None) -> None:
    """Nor does a missing file: DVC is the one to miss it."""
    if content is not None:
        overrides.FILE.write_text(content, newline="")
    prepare()

    assert figures()["kept"] == 32
    assert figures()["overrides"] == {"dropped": 0, "relabelled": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gold/03.jpg,drop,,{sha}", r"line 2: there is no photo 'gold/03\.jpg'.*mean 'gold/0"),
        ("moss/003.jpg,drop,,{sha}", "not the photo that was decided on"),
        ("lost/003.jpg,drop,,{sha}", r"It lies at 'gold/003\.jpg' now"),
        ("gold/003.jpg,remove,,{sha}", "decision 'remove' is unknown. Known: drop, relabel"),
        ("gold/003.jpg,relabel,mos,{sha}", "class 'mos' is unknown. Known: gold, moss"),
        ("gold/003.jpg,relabel,gold,{sha}", "is of class 'gold' by its folder"),
        ("gold/003.jpg,drop,moss,{sha}", "a dropped photo has no label, but 'moss'"),
        ("gold/003.jpg,drop,,", "SHA-256 is '{sha}', not ''"),
        ("gold/003.jpg,drop", "line 2: 2 fields, not the 4 of the header"),
        (
            "gold/003.jpg,drop,,{sha}\ngold/003.jpg,relabel,moss,{sha}",
            "line 3: line 2 decides on 'gold/003.jpg' already",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(toy_set: Path, line: str, message: str) -> None:
    """And nothing is written: a decision that is passed over would not be missed."""
    sha = sha256(toy_set / "gold/003.jpg")
    decide(line.replace("{sha}", sha))

    with pytest.raises(MeadowError, match=message.replace("{sha}", sha)):
        prepare()
    assert not manifest.FOLDER.exists()


@pytest.mark.parametrize("content", [b"", b"path;decision;label;sha256\n", b"\xff\xfe"])
def test_another_table_is_refused(toy_set: Path, content: bytes) -> None:
    """As spreadsheets may save it: with semicolons, or in another encoding."""
    overrides.FILE.write_bytes(content)

    with pytest.raises(MeadowError, match=r"not the header 'path|not UTF-8"):
        prepare()


def test_a_replaced_photo_is_not_decided_on(toy_set: Path) -> None:
    """The decision was on what the file held then."""
    decide(f"gold/003.jpg,drop,,{sha256(toy_set / 'gold/003.jpg')}")
    shutil.copy(toy_set / "gold/004.jpg", toy_set / "gold/003.jpg")

    with pytest.raises(MeadowError, match="not the photo that was decided on"):
        prepare()


def test_a_class_cannot_be_relabelled_away(toy_set: Path) -> None:
    """It would vanish from the model without a word."""
    gold = sorted((toy_set / "gold").iterdir())
    decide(*(f"gold/{path.name},relabel,moss,{sha256(path)}" for path in gold[:-2]))

    with pytest.raises(MeadowError, match="class 'gold' has 2 usable photos"):
        prepare()


def test_duplicates_are_judged_by_the_new_label(toy_set: Path) -> None:
    """Relabelling one of two alike is refused; of two in different classes, it is the cure."""
    (toy_set / "moss/stray.jpg").write_bytes(
        encoded(Image.open(toy_set / "gold/005.jpg"), quality=30)
    )
    decide(f"moss/stray.jpg,relabel,gold,{sha256(toy_set / 'moss/stray.jpg')}")
    prepare()
    assert figures()["near_duplicates"] == 2

    (toy_set / "moss/stray.jpg").rename(toy_set / "gold/stray.jpg")
    decide(f"gold/stray.jpg,relabel,moss,{sha256(toy_set / 'gold/stray.jpg')}")
    with pytest.raises(MeadowError, match=r"'gold/stray\.jpg' \(relabelled 'moss'\)"):
        prepare()


def test_a_bad_photo_can_be_dropped(toy_set: Path, set_params: SetParams) -> None:
    """A set that must have no bad photo then runs again."""
    set_params(prepare={"on_bad_photo": "fail"})
    (toy_set / "gold/bad.jpg").write_bytes(b"hello")
    decide(f"gold/bad.jpg,drop,,{sha256(toy_set / 'gold/bad.jpg')}")
    prepare()

    assert left_out() == {"gold/bad.jpg": "dropped"}


def test_the_command_writes_what_prepare_reads(
    toy_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a path as in the review list, or as a shell completes it; earlier lines stay."""
    (toy_set / "gold/a, b.jpg").write_bytes((toy_set / "gold/003.jpg").read_bytes())
    (toy_set / "gold/003.jpg").unlink()
    main(["review", "gold/a, b.jpg", "--drop"])
    main(["review", "data/raw/moss/003.jpg", "--relabel", "gold"])

    assert "dvc repro" in capsys.readouterr().out
    assert overrides.FILE.read_text().splitlines() == [
        HEADER,
        f'"gold/a, b.jpg",drop,,{sha256(toy_set / "gold/a, b.jpg")}',
        f"moss/003.jpg,relabel,gold,{sha256(toy_set / 'moss/003.jpg')}",
    ]
    prepare()
    assert figures()["overrides"] == {"dropped": 1, "relabelled": 1}


@pytest.mark.parametrize(
    "listing",
    [
        "gold/003.jpg\nmoss/004.jpg\n",
        "path,reason\r\ngold/003.jpg,two_labels\r\nmoss/004.jpg,copy\r\n",
    ],
    ids=["lines", "a table"],
)
def test_one_decision_falls_on_many_photos(toy_set: Path, listing: str) -> None:
    """Named one by one, or in a file such as a part of left_out.csv."""
    Path("list.txt").write_text(listing, newline="")
    main(["review", "gold/001.jpg", "gold/002.jpg", "--file", "list.txt", "--drop"])
    prepare()

    assert list(left_out()) == ["gold/001.jpg", "gold/002.jpg", "gold/003.jpg", "moss/004.jpg"]


def test_all_or_none_of_many_photos_are_decided_on(toy_set: Path) -> None:
    """Each mistake is named at once."""
    with pytest.raises(SystemExit, match=r"(?s)photo 'gold/a.jpg'.*photo 'gold/b.jpg'"):
        main(["review", "gold/001.jpg", "gold/a.jpg", "gold/b.jpg", "--drop"])

    assert not overrides.FILE.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff\xfe", "UTF-8"), (b"\n", "lists no photo")],
)
def test_a_list_without_photos_is_refused(
    toy_set: Path, content: bytes | None, message: str
) -> None:
    """Instead of a decision on nothing."""
    if content is not None:
        Path("list.txt").write_bytes(content)

    with pytest.raises(SystemExit, match=message):
        main(["review", "--file", "list.txt", "--drop"])
    with pytest.raises(SystemExit, match="no photo is named"):
        main(["review", "--drop"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gold/000.jpg", "--drop"], "line 2: 'gold/000.jpg' is decided on already"),
        (["gold/1.jpg", "--drop"], r"stays as it was:\nthere is no photo 'gold/1.jpg'"),
        (["gold/001.jpg", "--relabel", "mos"], r"stays as it was:\nclass 'mos' is unknown"),
    ],
)
def test_the_command_refuses_what_prepare_would_refuse(
    toy_set: Path, arguments: list[str], message: str
) -> None:
    """The file stays as it was."""
    main(["review", "gold/000.jpg", "--drop"])
    before = overrides.FILE.read_bytes()

    with pytest.raises(SystemExit, match=message):
        main(["review", *arguments])
    assert before == overrides.FILE.read_bytes()
