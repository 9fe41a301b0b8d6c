"""Labels of flat photos from a table, whatever shape it has."""

import io
from pathlib import Path

import pytest

from meadow.commands.label_file import labelled
from meadow.commands.sources import Entry
from meadow.errors import MeadowError

PHOTOS = ["train/1.jpg", "train/2.jpg", "test/3.jpg"]
BOTH = {"rose/train/1.jpg", "tulip/train/2.jpg"}


def entries(*paths: str) -> list[Entry]:
    return [Entry(tuple(path.split("/")), lambda: io.BytesIO(b"x")) for path in paths]


def read(file: Path, text: str, *, columns: tuple[str, str] | None = None) -> set[str]:
    """Write a table, and return the paths of the photos that get a label by it."""
    file.write_text(text, "utf-8")
    placed, rest = labelled(Path("mine"), entries(*PHOTOS, "README.md"), file, columns)
    assert len(placed) + len(rest) == len(PHOTOS)
    return {entry.path for entry in placed}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "file,label\n1.jpg,rose\n2.jpg,tulip\n"),
        ("labels.csv", "\ufeffid,breed\r\n1,rose\r\n2,tulip\r\n"),
        ("labels.csv", "n,class_name,width,image\n1,rose,5,train/1.jpg\n2,tulip,5,train/2.jpg\n"),
        ("labels.csv", "image;what\n1.jpg;rose\n2.jpg; tulip \n9.jpg;daisy\n"),
        ("labels.tsv", "image\tlabel\n/kaggle/train/1.jpg\trose\ntrain\\2.jpg\ttulip\n3.jpg\t\n"),
        ("labels.csv", "train/1.jpg,rose\ntrain/2.jpg,tulip\n"),
        ("_classes.csv", "filename, rose, tulip\n1.jpg,1,0\n2.jpg,0,1\n"),
        ("labels.csv", "image_id,rose,tulip,daisy\n1,1.0,0.0,0.0\n2,0.0,1.0,0.0\n"),
        ("labels.json", '{"1.jpg": "rose", "2.jpg": "tulip"}'),
        ("labels.json", '[{"image": "1", "label": "rose"}, {"image": "2", "label": "tulip"}]'),
        (
            "a.jsonl",
            '{"file_name": "1.jpg", "label": "rose"}\n{"file_name": "2", "label": "tulip"}',
        ),
    ],
)
def test_columns_are_found(name: str, text: str, tmp_path: Path) -> None:
    """By their values, which name photos, and by what columns of labels are called."""
    assert read(tmp_path / name, text) == BOTH


def test_columns_are_named(tmp_path: Path) -> None:
    """Where two could be the label, the error lists them; zero is a label too."""
    text = "id,colour,kind\n1,0,rose\n2,1,tulip\n"
    with pytest.raises(MeadowError, match="'id', 'colour', 'kind': name two, `--columns"):
        read(tmp_path / "labels.csv", text)
    assert read(tmp_path / "labels.csv", text, columns=("id", "kind")) == BOTH
    numbers = read(tmp_path / "labels.csv", text, columns=("id", "colour"))
    assert numbers == {"0/train/1.jpg", "1/train/2.jpg"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labels.csv", "id,label\n7,rose\n", "no column names the photos"),
        ("labels.csv", "", "Its columns are none"),
        ("labels.csv", "id,label\n1,rose\n1,tulip\n", "the labels 'rose' and 'tulip'"),
        ("labels.csv", "id,rose,tulip\n1,1,1\n", "the labels 'rose' and 'tulip'"),
        ("labels.csv", "id,label\n1,a/b\n", "'a/b' cannot be the name of a class"),
        ("labels.csv", "id,label\n1,.rose\n", "'.rose' cannot be the name of a class"),
        ("labels.csv", "id,label\n1,rose\n2\n", "a record lacks label"),
        ("labels.json", "[1]", "neither a list of objects nor"),
        ("labels.json", "[", "cannot be read"),
    ],
)
def test_what_is_no_table_of_labels(name: str, text: str, message: str, tmp_path: Path) -> None:
    """Refused in words."""
    with pytest.raises(MeadowError) as caught:
        read(tmp_path / name, text)
    assert message in str(caught.value)


def test_a_name_that_fits_two_photos(tmp_path: Path) -> None:
    """A guess could give a photo the label of another; more of the path decides."""
    photos = entries("a/1.jpg", "b/1.jpg")
    file = tmp_path / "labels.csv"
    file.write_text("id,label\n1.jpg,rose\n")
    with pytest.raises(MeadowError, match=r"'1\.jpg' could be 'a/1\.jpg' or 'b/1\.jpg'"):
        labelled(Path("mine"), photos, file, None)
    file.write_text("id,label\nb/1.jpg,rose\n")
    assert [entry.path for entry in labelled(Path("mine"), photos, file, None)[0]] == [
        "rose/b/1.jpg"
    ]


def test_a_table_in_each_split(tmp_path: Path) -> None:
    """As Roboflow has them: all tables of the name count."""

    def entry(path: str, text: str) -> Entry:
        return Entry(tuple(path.split("/")), lambda: io.BytesIO(text.encode()))

    tables = [
        entry("train/_classes.csv", "filename, rose, tulip\n1.jpg, 1, 0\n2.jpg, 0, 1\n"),
        entry("test/_classes.csv", "filename, rose, tulip\n3.jpg, 0, 1\n"),
    ]
    placed, _ = labelled(Path("mine"), [*entries(*PHOTOS), *tables], Path("_classes.csv"), None)
    assert {entry.path for entry in placed} == BOTH | {"tulip/test/3.jpg"}


def test_no_such_file(tmp_path: Path) -> None:
    """Neither on disk nor in the source."""
    with pytest.raises(MeadowError, match="and none of its name in mine"):
        labelled(Path("mine"), entries(*PHOTOS), tmp_path / "absent.csv", None)
