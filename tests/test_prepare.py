import csv
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from toys import SetParams, draw_set, encoded, photo

from meadow.errors import MeadowError
from meadow.pipeline import manifest
from meadow.pipeline.image import Preprocessing
from meadow.prepare import prepare

RAW = Path("data/raw")


def figures() -> dict[str, object]:
    metrics: dict[str, object] = json.loads(Path("metrics/prepare.json").read_text())
    return metrics


def left_out() -> dict[str, str]:
    with Path("data/prepared/left_out.csv").open(encoding="utf-8", newline="") as file:
        return {record["path"]: record["reason"] for record in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_photo_is_listed_once_and_packed_in_order(toy_set: Path) -> None:
    """The manifest names each photo, and packed photo i of a split is the i-th photo of it."""
    prepare()
    ready = manifest.load()

    assert ready.classes == ["gold", "moss"]
    assert [row.path for row in ready.rows] == sorted(
        p.relative_to(toy_set).as_posix() for p in toy_set.rglob("*.jpg")
    )
    for split in ("train", "val"):
        photos = ready.photos(split)
        for row, pixels in zip(photos.rows, photos.pixels, strict=True):
            data = (toy_set / row.path).read_bytes()
            assert np.array_equal(pixels, Preprocessing(32, "squash")(data))


def test_the_test_photos_are_not_packed(toy_set: Path) -> None:
    """What train cannot read, it cannot learn from."""
    prepare()

    assert sorted(p.name for p in manifest.FOLDER.iterdir()) == [
        "classes.json",
        "left_out.csv",
        "manifest.csv",
        "train-00000.npy",
        "val-00000.npy",
    ]


def test_same_photos_same_bytes_at_any_number_of_threads(
    toy_set: Path, set_params: SetParams
) -> None:
    """Nor does the place or the age of a file matter."""
    set_params(runtime={"workers": 1})
    prepare()
    first = contents(Path("data/prepared"))
    os.utime(toy_set / "gold/000.jpg", (1, 1))
    set_params(runtime={"workers": 7})
    prepare()

    assert first == contents(Path("data/prepared"))


def test_adding_photos_moves_no_old_one(toy_set: Path) -> None:
    """Otherwise figures of two versions of the data could not be compared."""
    prepare()
    before = {row.path: row.split for row in manifest.load().rows}
    for i in range(30):
        (toy_set / "gold" / f"new{i}.jpg").write_bytes(encoded(photo(1000 + i)))
    prepare()
    after = {row.path: row.split for row in manifest.load().rows}

    assert len(after) == len(before) + 30
    assert before == {path: after[path] for path in before}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "format"),
        (b"hello", "format"),
        (encoded(photo(1))[:600], "damaged"),
        (encoded(photo(1, side=20)), "too_small"),
        (encoded(Image.new("1", (9000, 9000)), "PNG"), "too_large"),
    ],
    ids=["empty", "text", "truncated", "tiny", "huge"],
)
def test_a_bad_photo_is_left_out_by_name(
    toy_set: Path,
    set_params: SetParams,
    capsys: pytest.CaptureFixture[str],
    data: bytes,
    reason: str,
) -> None:
    """Or fails the stage, as prepare.on_bad_photo says; then nothing is written."""
    (toy_set / "gold/bad.jpg").write_bytes(data)
    prepare()

    assert left_out() == {"gold/bad.jpg": reason}
    assert figures()["left_out"] == {"total": 1, reason: 1}
    assert "gold/bad.jpg" in capsys.readouterr().err

    before = contents(Path("data"))
    set_params(prepare={"on_bad_photo": "fail"})
    with pytest.raises(MeadowError, match=r"gold/bad\.jpg"):
        prepare()
    assert before == contents(Path("data"))


def test_the_modes_of_real_files_are_taken(toy_set: Path) -> None:
    """CMYK, 16-bit, palette and alpha photos, and one that lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.asarray(photo(1).convert("L")).astype(np.uint16) * 257
    for name, data in {
        "cmyk.jpg": encoded(photo(501).convert("CMYK")),
        "deep.png": encoded(Image.fromarray(grey), "PNG"),
        "palette.png": encoded(photo(502).convert("P"), "PNG"),
        "alpha.png": encoded(photo(503).convert("RGBA"), "PNG"),
        "turned.jpg": encoded(photo(504), exif=exif),
    }.items():
        (toy_set / "gold" / name).write_bytes(data)

    prepare()

    assert left_out() == {}
    assert figures()["kept"] == 37


def test_copies_and_near_duplicates_stay_on_one_side(toy_set: Path) -> None:
    """A byte copy is left out; a resized or re-encoded one stays in its original's split."""
    original = Image.open(toy_set / "gold/003.jpg").convert("RGB")
    shutil.copy(toy_set / "gold/003.jpg", toy_set / "gold/copy.jpg")
    (toy_set / "gold/poor.jpg").write_bytes(encoded(original, quality=30))
    (toy_set / "gold/small.png").write_bytes(encoded(original.resize((48, 52)), "PNG"))

    prepare()

    rows = {row.path: row for row in manifest.load().rows}
    group = [rows[f"gold/{name}"] for name in ("003.jpg", "poor.jpg", "small.png")]
    assert left_out() == {"gold/copy.jpg": "copy"}
    assert figures()["near_duplicates"] == 3
    assert len({row.group for row in group}) == len({row.split for row in group}) == 1


@pytest.mark.parametrize("quality", [None, 30])
def test_one_photo_in_two_classes_is_refused(toy_set: Path, quality: int | None) -> None:
    """One of its labels is wrong, and only a person knows which."""
    source = toy_set / "gold/005.jpg"
    data = source.read_bytes() if quality is None else encoded(Image.open(source), quality=quality)
    (toy_set / "moss/stray.jpg").write_bytes(data)

    with pytest.raises(MeadowError, match=r"gold/005\.jpg' = 'moss/stray\.jpg"):
        prepare()


def test_photos_with_two_labels_can_all_be_dropped(
    toy_set: Path, set_params: SetParams, capsys: pytest.CaptureFixture[str]
) -> None:
    """A placeholder in every class, and a near-duplicate in two: listed, with their likes."""
    set_params(prepare={"on_two_labels": "drop"})
    prepare()
    before = contents(Path("data/prepared"))
    for path in ("gold/none1.jpg", "gold/none2.jpg", "moss/none.jpg"):
        (toy_set / path).write_bytes(encoded(photo(990)))
    (toy_set / "gold/poor.jpg").write_bytes(encoded(photo(991), quality=30))
    (toy_set / "moss/stray.jpg").write_bytes(encoded(photo(991)))
    prepare()
    after = contents(Path("data/prepared"))

    assert left_out() == dict.fromkeys(
        ("gold/none1.jpg", "gold/none2.jpg", "moss/none.jpg", "gold/poor.jpg", "moss/stray.jpg"),
        "two_labels",
    )
    assert "looks like 'moss/none.jpg'" in after.pop("left_out.csv").decode()
    assert after.items() < before.items()
    assert figures()["left_out"] == {"total": 5, "two_labels": 5}
    assert "left out 5 photos that are the same or nearly so" in capsys.readouterr().err


def test_a_long_group_is_named_in_short(toy_set: Path) -> None:
    """Two hundred names on a line would hide what to do."""
    for i in range(30):
        (toy_set / f"gold/none{i:02}.jpg").write_bytes(encoded(photo(990)))
    (toy_set / "moss/none.jpg").write_bytes(encoded(photo(990)))

    with pytest.raises(
        MeadowError, match=r"'gold/none19\.jpg' = \.\.\. and 11 more\nKeep"
    ) as error:
        prepare()
    assert "prepare.on_two_labels: drop" in str(error.value)


def test_near_duplicates_can_be_switched_off(toy_set: Path, set_params: SetParams) -> None:
    """The way out when photos only look alike to the program."""
    set_params(prepare={"near_duplicates": False})
    data = encoded(Image.open(toy_set / "gold/005.jpg"), quality=30)
    (toy_set / "moss/stray.jpg").write_bytes(data)

    prepare()

    assert figures()["near_duplicates"] == 0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "0 classes"),
        ({"gold": 8}, r"1 classes \('gold'\)"),
        ({"gold": 8, "moss": 0}, "no files in the class folder 'moss'"),
        ({"gold": 8, "moss": 2}, r"class 'moss' has 2 usable photos\n3 different"),
    ],
    ids=["none", "one class", "an empty class", "fewer photos than splits"],
)
def test_a_set_too_small_is_refused(project: Path, counts: dict[str, int], message: str) -> None:
    """With the number that is there and the number that is needed."""
    RAW.mkdir(parents=True)
    draw_set(RAW, counts)

    with pytest.raises(MeadowError, match=message):
        prepare()


@pytest.mark.parametrize("pictures", [1, 2])
def test_photos_of_a_burst_count_once(toy_set: Path, pictures: int) -> None:
    """A class of fewer pictures than splits would be missing in train, or in test."""
    draw_burst(toy_set / "rust", 20)
    for number in range(1, pictures):
        (toy_set / f"rust/other{number}.jpg").write_bytes(encoded(photo(900 + number)))

    with pytest.raises(
        MeadowError,
        match=rf"'rust' has {19 + pictures} usable photos, .* only {pictures} differ",
    ):
        prepare()
    assert not manifest.FOLDER.exists()


def test_a_class_is_trained_on_beside_its_burst(toy_set: Path) -> None:
    """Three pictures are enough: the burst for train, the others for val and test."""
    draw_burst(toy_set / "rust", 20)
    for number in range(2):
        (toy_set / f"rust/other{number}.jpg").write_bytes(encoded(photo(900 + number)))
    prepare()
    rust = [row for row in manifest.load().rows if row.label == "rust"]

    assert {row.split for row in rust if "frame" in row.path} == {"train"}
    assert {row.split for row in rust} == {"train", "val", "test"}


def draw_burst(folder: Path, count: int) -> None:
    """Draw one picture so many times, a little brighter each time."""
    folder.mkdir()
    for i in range(count):
        frame = ImageEnhance.Brightness(photo(800)).enhance(1 + i / 200)
        (folder / f"frame{i:02}.jpg").write_bytes(encoded(frame, quality=90))


def test_without_photos_the_next_command_is_named(project: Path) -> None:
    """A fresh clone has none."""
    with pytest.raises(MeadowError, match="meadow data demo"):
        prepare()


def test_odd_file_names_are_names(toy_set: Path) -> None:
    """Spaces, quotes, commas and emoji come through the manifest unchanged."""
    names = {"two words.jpg", "quo'te's.jpg", "a,b;c.jpg", "\U0001f33c.jpg", "-n.jpg"}
    for i, name in enumerate(names):
        (toy_set / "gold" / name).write_bytes(encoded(photo(700 + i)))

    prepare()

    assert names <= {Path(row.path).name for row in manifest.load().rows}


def test_names_that_not_every_system_can_hold_are_refused(toy_set: Path) -> None:
    """A carriage return passed, and broke the reading of the manifest in all later stages."""
    for name in ("a\rb.jpg", "12:30.jpg"):
        (toy_set / "gold" / name).write_bytes(encoded(photo(700)))

    with pytest.raises(MeadowError, match=r"12:30\.jpg' has :\n.*'a\\rb\.jpg' has a control"):
        prepare()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (OSError(errno.EIO, "Input/output error"), MeadowError, r"gold/003\.jpg.*Input/output"),
        (MemoryError("too little"), MemoryError, "too little"),
    ],
)
def test_a_photo_is_never_left_out_for_want_of_memory_or_a_disk(
    toy_set: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    expected: type[Exception],
    words: str,
) -> None:
    """The stage fails, and its outs stay as they were."""
    prepare()
    before = contents(Path("data/prepared"))
    read = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "003.jpg":
            raise error
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(expected, match=words):
            prepare()

    assert contents(Path("data/prepared")) == before


def test_a_link_out_of_the_set_is_not_followed(toy_set: Path, tmp_path: Path) -> None:
    """Data from elsewhere would not be versioned with the set, or be private."""
    outside = tmp_path / "outside"
    draw_set(outside, {"private": 2})
    (toy_set / "gold/link.jpg").symlink_to(outside / "private/000.jpg")
    (toy_set / "gold/folder").symlink_to(outside / "private")
    (toy_set / "gold/nowhere.jpg").symlink_to("nowhere")
    (toy_set / "gold/itself.jpg").symlink_to("itself.jpg")

    prepare()

    assert left_out() == {
        "gold/folder": "link",
        "gold/itself.jpg": "link",
        "gold/link.jpg": "link",
        "gold/nowhere.jpg": "link",
    }


def test_a_link_into_a_dvc_cache_is_a_photo(toy_set: Path, tmp_path: Path) -> None:
    """DVC advises `cache.type symlink` for machines that several people share."""
    prepare()
    as_files = contents(Path("data/prepared"))
    for path in toy_set.glob("*/*.jpg"):
        md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        cached = tmp_path / "shared cache/files/md5" / md5[:2] / md5[2:]
        cached.parent.mkdir(parents=True, exist_ok=True)
        path.rename(cached)
        path.symlink_to(cached)
    prepare()

    assert contents(Path("data/prepared")) == as_files
    assert not left_out()


def test_a_class_folder_that_is_a_link_is_refused(toy_set: Path, tmp_path: Path) -> None:
    """`dvc add` passes over it without a word; the advice makes a set that it keeps whole."""
    (toy_set / "moss").rename(tmp_path / "elsewhere")
    (toy_set / "moss").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MeadowError, match="'data/raw/moss' is a link") as refused:
        prepare()

    command = re.findall("`(.*?)`", str(refused.value))[0]
    subprocess.run(["sh", "-c", command], check=True)
    assert len(list((tmp_path / "COPY/moss").iterdir())) == 16


def test_a_file_beside_the_class_folders_is_refused(toy_set: Path) -> None:
    """It has no label; hidden files and the litter of systems are passed over."""
    (toy_set / ".DS_Store").write_bytes(b"x")
    (toy_set / "gold/Thumbs.db").write_bytes(b"x")
    prepare()
    (toy_set / "lost.jpg").write_bytes(encoded(photo(1)))

    with pytest.raises(MeadowError, match=r"lost\.jpg' lies beside the class folders"):
        prepare()


def stage(limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "meadow.prepare"],
        check=False, capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip


def test_a_full_disk_leaves_nothing_half_written(toy_set: Path) -> None:
    """The error is one line, the old result stays, and a rerun completes."""
    prepare()
    before = contents(Path("data/prepared"))

    done = stage(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)))

    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "make room" in done.stderr
    assert before == contents(Path("data/prepared"))
    assert not list(Path("data").glob("*.part"))
    assert stage().returncode == 0


KILLED = """
import os, signal
from meadow import prepare
from meadow.pipeline import shards
parts = shards._parts
def killed(*arguments):
    yield from parts(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
shards._parts = killed
prepare.prepare()
"""


def test_a_killed_run_is_not_taken_for_a_whole_one(toy_set: Path) -> None:
    """What it left lies under another name, and the next run removes it."""
    prepare()
    before = contents(Path("data/prepared"))
    (toy_set / "gold/new.jpg").write_bytes(encoded(photo(1000)))
    assert subprocess.run([sys.executable, "-c", KILLED], check=False).returncode == -9
    part = Path("data/prepared.part")
    assert (part / "train-00000.npy").exists()
    assert contents(Path("data/prepared")) == before

    prepare()

    assert not part.exists()
    assert len(manifest.load().photos("train").pixels) == figures()["train"]


def chosen(raw: Path, name: str, data: bytes) -> None:
    """Add a photo of gold that was chosen by the model's answer."""
    path = raw / "gold/train-only" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def test_photos_chosen_by_the_model_are_in_no_test_and_move_no_other(toy_set: Path) -> None:
    """Neither those that look like none nor those that look like old ones."""
    prepare()
    before = {row.path: (row.split, row.group) for row in manifest.load().rows}
    for i in range(40):
        chosen(toy_set, f"{i}.jpg", encoded(photo(2000 + i), quality=92))
    old = {split: manifest.load().split(split)[0] for split in ("train", "val", "test")}
    for split, row in old.items():
        image = Image.open(toy_set / row.path)
        data = encoded(ImageEnhance.Brightness(image).enhance(1.05), quality=80)
        if row.label == "gold":
            chosen(toy_set, f"like-{split}.jpg", data)
    prepare()
    rows = {row.path: row for row in manifest.load().rows}
    new = {path: row.split for path, row in rows.items() if "train-only" in path}

    assert {path: (rows[path].split, rows[path].group) for path in before} == before
    assert set(new.values()) == {"train"}
    assert len(new) == 40 + ("gold/train-only/like-train.jpg" in new)
    alike = {f"gold/train-only/like-{s}.jpg" for s in ("val", "test") if old[s].label == "gold"}
    assert alike
    assert {path for path, reason in left_out().items() if reason == "train_only"} == alike
    assert figures()["left_out"] == {"total": len(alike), "train_only": len(alike)}


def test_a_class_needs_photos_that_may_be_tested(toy_set: Path) -> None:
    """Those that the model chose do not count."""
    for i in range(40):
        chosen(toy_set, f"{i}.jpg", encoded(photo(2000 + i), quality=92))
    for path in sorted((toy_set / "gold").glob("*.jpg"))[2:]:
        path.unlink()
    with pytest.raises(MeadowError, match="class 'gold' has 2 usable photos"):
        prepare()


def test_a_copy_of_an_old_photo_does_not_take_its_place(toy_set: Path) -> None:
    """Though its path comes first."""
    prepare()
    before = {row.path: row.split for row in manifest.load().rows}
    path = sorted(path for path in before if path.startswith("moss"))[-1]
    (toy_set / "moss/a/train-only").mkdir(parents=True)
    (toy_set / "moss/a/train-only/a.jpg").write_bytes((toy_set / path).read_bytes())
    prepare()

    assert {row.path: row.split for row in manifest.load().rows} == before
    assert left_out() == {"moss/a/train-only/a.jpg": "copy"}
