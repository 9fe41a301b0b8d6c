"""Taking a set from a folder or an archive: all of it, nothing else, or a clear refusal."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sources import PHOTOS, ROSE, TULIP, TWO, contents, in_folder, in_zip, patched, photo, refused

from meadow.commands import importing
from meadow.commands.importing import import_set
from meadow.curation import discovery
from meadow.pipeline.formats import SUFFIXES


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


@pytest.mark.parametrize("top", ["", "flowers/", "archive/flowers/"])
@pytest.mark.parametrize("packed", [in_folder, in_zip])
def test_a_set_arrives_whole(
    packed: Callable[..., Path], top: str, tmp_path: Path, target: Path
) -> None:
    """From a folder or an archive, under two top folders or none: the same files, and no litter."""
    litter = {f"{top}rose/{name}": b"x" for name in (".DS_Store", "thumbs.db", "@eaDir/x.jpg")}
    litter |= {"__MACOSX/flowers/rose/._1.jpg": b"x", f"{top}.git/HEAD": b"x", ".hidden": b"x"}
    files = {top + name: data for name, data in PHOTOS.items()}
    import_set(packed(tmp_path / "source.zip", files | litter), target)
    assert contents(target) == PHOTOS
    assert [path.name for path in target.parent.iterdir()] == ["raw"]
    assert {file.path for file in discovery.find(target)} == set(PHOTOS)


def test_an_earlier_set_is_replaced(tmp_path: Path, target: Path) -> None:
    """Nothing of an earlier set mixes with the new one."""
    in_folder(target, {"daisy/1.jpg": photo()})
    import_set(in_folder(tmp_path / "mine", TWO), target)
    assert contents(target) == TWO


def test_an_earlier_set_outlives_a_refusal(tmp_path: Path, target: Path) -> None:
    """A refused import leaves the earlier set as it was."""
    in_folder(target, TWO)
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name in (ROSE, TULIP):
            archive.writestr(name, photo())
    damaged = (tmp_path / "mine.zip").read_bytes().replace(photo()[20:40], bytes(20))
    (tmp_path / "mine.zip").write_bytes(damaged)
    assert "cannot be read" in refused(tmp_path / "mine.zip", target)
    assert contents(target) == TWO


def test_the_summary_counts_and_warns(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts go to the output, at most 20 lines of them; odd extensions are warned of."""
    files = {f"class{number:02}/1.JPG": photo(number) for number in range(25)}
    import_set(in_folder(tmp_path / "mine", files | {"class00/notes.txt": b"hello"}), target)
    printed = capsys.readouterr()
    assert "26 files in 25 classes" in printed.out
    assert "2 'class00'" in printed.out
    assert "and 5 more classes" in printed.out
    assert len(printed.out.splitlines()) == 22
    assert f"files that do not end in {', '.join(SUFFIXES)}" in printed.err
    assert "(1): 'class00/notes.txt'" in printed.err


@pytest.mark.parametrize("top", ["", "flowers/"])
@pytest.mark.parametrize("packed", [in_folder, in_zip])
def test_a_readme_beside_the_classes_stays_behind(
    packed: Callable[..., Path],
    top: str,
    tmp_path: Path,
    target: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As prepare passes it over; all of them are named, and at both levels."""
    readmes = {"LICENSE": b"x", f"{top}README.md": b"x", f"{top}labels.csv": b"x"}
    files = {top + name: data for name, data in PHOTOS.items()}
    import_set(packed(tmp_path / "source.zip", files | readmes), target)
    assert contents(target) == PHOTOS
    printed = capsys.readouterr().err
    assert "(3)" in printed
    assert all(name in printed for name in ("LICENSE", "README.md", "labels.csv"))


SPLIT_LAYOUTS = [  # as Ultralytics, Roboflow and Kaggle have them
    ("train/", "val/", "test/"),
    ("valid/", "test/", "train/"),
    ("archive/train/", "archive/test/"),
    ("data/archive/Train/", "data/archive/Validation/"),
    ("training_set/training_set/", "test_set/test_set/"),
    ("seg_train/seg_train/", "seg_test/seg_test/"),
]


@pytest.mark.parametrize("packed", [in_folder, in_zip])
@pytest.mark.parametrize("splits", SPLIT_LAYOUTS, ids=", ".join)
def test_splits_are_merged_or_refused_and_never_classes(
    packed: Callable[..., Path], splits: tuple[str, ...], tmp_path: Path, target: Path
) -> None:
    """The error names the option; merged, photos of one name in two splits are both kept."""
    files = {split + name: data for split in splits for name, data in PHOTOS.items()}
    source = packed(tmp_path / "mine", files | {f"{splits[0]}README.txt": b"x"})
    message = refused(source, target)
    assert "splits, not classes" in message
    assert "--merge-splits" in message
    assert "--labels FILE" in message

    import_set(source, target, merge_splits=True)
    assert {file.label for file in discovery.find(target)} == {"rose", "tulip"}
    assert sorted(contents(target).values()) == sorted([*PHOTOS.values()] * len(splits))


def test_photos_of_a_split_without_classes_stay_behind(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kaggle's test photos have no labels, so no class is made of them."""
    files = {f"train/{name}": data for name, data in TWO.items()} | {"test/9.jpg": photo(9)}
    import_set(in_folder(tmp_path / "mine", files), target, merge_splits=True)
    assert contents(target) == {"rose/train/1.jpg": photo(1), "tulip/train/1.jpg": photo(2)}
    assert "in no class (1): 'test/9.jpg'" in capsys.readouterr().err


def test_columns_of_no_table(tmp_path: Path, target: Path) -> None:
    """Passed over, they would hide a forgotten option."""
    mine = in_folder(tmp_path / "mine", TWO)
    assert "--labels FILE" in refused(mine, target, columns=("id", "label"))


def test_nothing_to_merge(tmp_path: Path, target: Path) -> None:
    """An option that does nothing would hide a mistake; real trains may be a class."""
    mine = in_folder(tmp_path / "mine", {"train/1.jpg": photo(1), "bus/1.jpg": photo(2)})
    assert "has no folders of splits" in refused(mine, target, merge_splits=True)
    import_set(mine, target)
    assert {file.label for file in discovery.find(target)} == {"bus", "train"}


@pytest.mark.parametrize("packed", [in_folder, in_zip])
def test_flat_photos_with_a_table_of_labels(
    packed: Callable[..., Path], tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Kaggle has them; the table may lie in the source, and photos without a label stay."""
    files = {"train/1.jpg": photo(1), "train/2.jpg": photo(2), "test/3.jpg": photo(3)}
    table = b"id,breed\n1,rose\n2,tulip\n"
    source = packed(tmp_path / "mine", files | {"labels.csv": table})
    assert "--labels FILE" in refused(source, target)
    import_set(source, target, labels=Path("labels.csv"))
    assert contents(target) == {"rose/train/1.jpg": photo(1), "tulip/train/2.jpg": photo(2)}
    assert "'test/3.jpg'" in capsys.readouterr().err


@pytest.mark.parametrize("packed", [in_folder, in_zip])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "has 0 classes"),
        ({ROSE: b"x"}, "has 1 classes ('rose'); 2 to 10000 are needed"),
        (TWO | {"lost.HEIC": b"x"}, "'lost.HEIC' lies beside the class folders"),
        ({"set/lost.jpg": b"x", "set/a/1.jpg": b"x"}, "'lost.jpg' lies beside the class"),
        (TWO | {"rose/A.jpg": b"x", "rose/a.jpg": b"y"}, "'rose/A.jpg' and 'rose/a.jpg' differ in"),
        (TWO | {"Tulip/2.jpg": b"x"}, "differ in case alone"),
        (
            TWO | {"rose/\u00e9": b"x", "rose/e\u0301": b"y"},
            "are one name, composed and decomposed",
        ),
        (TWO | {"daisy/.DS_Store": b"x", "daisy/": b""}, "no files in the class folder 'daisy'"),
    ],
)
def test_what_is_no_set_is_refused(
    packed: Callable[..., Path], files: dict[str, bytes], message: str, tmp_path: Path, target: Path
) -> None:
    """2 and more classes, nothing beside or missing in them, and names that differ everywhere."""
    if packed is in_folder:
        (tmp_path / "mine").mkdir()
        files = {name: data for name, data in files.items() if not name.endswith("/")}
    assert message in refused(packed(tmp_path / "mine", files), target)


@pytest.mark.parametrize("packed", [in_folder, in_zip])
def test_names_are_composed(packed: Callable[..., Path], tmp_path: Path, target: Path) -> None:
    """The macOS Finder packs them decomposed, and a class has one name on every machine."""
    import_set(packed(tmp_path / "mine", TWO | {"Lo\u0308wenzahn/a\u0308.jpg": photo()}), target)
    assert "L\u00f6wenzahn/\u00e4.jpg" in contents(target)


def test_too_many_classes(tmp_path: Path, target: Path) -> None:
    """More than 10,000 classes are refused before anything is unpacked."""
    archive = in_zip(tmp_path / "mine.zip", {f"{number}/1.jpg": b"x" for number in range(10_001)})
    assert "has 10001 classes; 2 to 10000 are needed" in refused(archive, target)


@pytest.mark.parametrize(
    "place", ["data/raw", "data/raw.part", "data/raw.old.part", "data/raw/mine", "data", "."]
)
def test_a_source_that_would_be_destroyed(place: str, tmp_path: Path, target: Path) -> None:
    """The target and its temporary name are emptied, so the source may not lie there."""
    source = in_folder(tmp_path / place, TWO)
    assert "overlap" in refused(source, target)
    assert contents(source) == TWO


def test_names_that_no_system_takes(tmp_path: Path, target: Path) -> None:
    """Names that are not UTF-8 or too long are refused before anything is written."""
    mine = in_folder(tmp_path / "mine", TWO)
    (mine / os.fsdecode(b"rose/\xff.jpg")).write_bytes(photo())
    assert "'\ufffd.jpg' is not UTF-8" in refused(mine, target)
    for long in ("x" * 300, "/".join("abcdefgh" * 16 for _ in range(10))):
        archive = in_zip(tmp_path / "long.zip", TWO | {f"rose/{long}": photo()})
        assert "is too long" in refused(archive, target)


def test_a_name_twice_in_an_archive(tmp_path: Path, target: Path) -> None:
    """The same name twice would lose one of two photos."""
    archive = in_zip(tmp_path / "mine.zip", TWO | {"rose//1.jpg": photo(5)})
    assert "'rose/1.jpg' is there twice" in refused(archive, target)


def test_a_file_and_a_folder_of_one_name(tmp_path: Path, target: Path) -> None:
    """A name cannot be a file and a folder."""
    archive = in_zip(tmp_path / "mine.zip", TWO | {"rose/1.jpg/2.jpg": photo(5)})
    assert "'rose/1.jpg' is there twice" in refused(archive, target)
    files = {f"set.jpg/{name}": data for name, data in TWO.items()}
    archive = in_zip(tmp_path / "mine.zip", files | {"set.jpg": photo(5)})
    assert "'set.jpg' lies beside" in refused(archive, target)


def test_archives_in_an_archive(tmp_path: Path, target: Path) -> None:
    """One for each class, as some galleries pack them: all are named, with what to do."""
    inner = in_zip(tmp_path / "inner.zip", {"1.jpg": photo(1)}).read_bytes()
    archive = in_zip(tmp_path / "mine.zip", {"all/rose.zip": inner, "all/tulip.ZIP": inner})
    message = refused(archive, target)
    assert "'all/rose.zip', 'all/tulip.ZIP'" in message
    assert "Unpack it and them" in message


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_file_too_large(
    method: int, tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a file is counted while it is written."""
    monkeypatch.setattr(importing, "MAX_BYTES", 100_000)
    archive = in_zip(tmp_path / "mine.zip", TWO | {"rose/2.jpg": bytes(100_001)}, method)
    assert "'rose/2.jpg' has more than 100,000 bytes" in refused(archive, target)


def test_a_header_that_lies(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that says it is small does not get by."""
    monkeypatch.setattr(importing, "MAX_BYTES", 100_000)
    archive = in_zip(tmp_path / "mine.zip", {ROSE: bytes(3_000_000), TULIP: photo()})
    patched(archive, 24, 22, (5000).to_bytes(4, "little"))
    message = refused(archive, target)
    assert "'rose/1.jpg'" in message
    assert "more than 100,000 bytes" in message or "cannot be read" in message


def test_a_bomb(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many files that are each small enough, but unpack to far more than the archive."""
    monkeypatch.setattr(importing, "MAX_BYTES", 50_000)
    files = {f"rose/{number}.jpg": bytes(50_000) for number in range(40)}
    archive = in_zip(tmp_path / "mine.zip", TWO | files)
    limit = 100 * archive.stat().st_size
    assert 50_000 < limit < 40 * 50_000
    assert f"unpacks to more than {limit:,} bytes" in refused(archive, target)


def test_a_set_too_large(tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole set has a limit, from a folder too."""
    monkeypatch.setattr(importing, "MAX_SET", 1000)
    assert "more than 1,000 bytes" in refused(in_folder(tmp_path / "mine", PHOTOS), target)
