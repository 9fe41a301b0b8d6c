"""The page about a photo set: what it finds, that it is one safe file, and the same every time."""

from pathlib import Path
from typing import Literal

import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from toys import TINTS, encoded, photo

from meadow import params
from meadow.curation import names
from meadow.curation.survey import survey, two_labels
from meadow.errors import MeadowError
from meadow.reporting import dataset_report, html
from meadow.reporting.html import Picture
from meadow.reporting.photo_set import PhotoSet

PAGE = Path("data-report.html")
HOSTILE = '<img src=x onerror="alert(1)">&'


def read() -> PhotoSet:
    return PhotoSet(survey(params.load()))


@pytest.fixture
def odd_set(toy_set: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a set with a copy, a resized copy, a blank photo, a broken file, and hostile names.

    Such names are refused; the page must not depend on that.
    """
    monkeypatch.setattr(names, "fault", lambda _: None)
    (toy_set / "gold/copy.jpg").write_bytes((toy_set / "gold/000.jpg").read_bytes())
    near = photo(1, TINTS[0]).resize((150, 166))
    (toy_set / "gold/near.png").write_bytes(encoded(near, "PNG"))
    dark = photo(500, (0, 0, 0), side=240)
    (toy_set / "gold/dark.webp").write_bytes(encoded(dark, "WEBP"))
    (toy_set / "moss/broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (toy_set / f"{HOSTILE} class").mkdir()
    for i in range(3):
        name = f"{HOSTILE}\n{i}.jpg"
        (toy_set / f"{HOSTILE} class" / name).write_bytes(encoded(photo(200 + i, TINTS[2])))
    return toy_set


def test_it_finds_what_prepare_would_leave_out_and_group(odd_set: Path) -> None:
    """By the same inspection; before any stage has run."""
    photo_set = read()
    groups = [[photo.file.path for photo in group] for group in photo_set.duplicates]

    assert [(bad.file.path, bad.reason) for bad in photo_set.left_out] == [
        ("gold/copy.jpg", "copy"),
        ("moss/broken.jpg", "damaged"),
    ]
    assert groups == [["gold/000.jpg", "gold/copy.jpg"], ["gold/001.jpg", "gold/near.png"]]
    assert photo_set.outliers[0].file.path == "gold/dark.webp"
    assert len(photo_set.photos) == 16 + 2 + 16 + 3


def test_what_fails_prepare_is_shown_instead(toy_set: Path) -> None:
    """A near-duplicate with two labels, and a class that is too small."""
    (toy_set / "moss/same.jpg").write_bytes((toy_set / "gold/000.jpg").read_bytes())
    (toy_set / "rust").mkdir()
    (toy_set / "rust/1.jpg").write_bytes(encoded(photo(300, TINTS[3])))
    photo_set = read()

    assert two_labels(photo_set.duplicates[0])
    assert "near-duplicates with two labels: 1." in photo_set.warnings[0]
    assert "class 'rust' has 1 usable photos; prepare needs 3 different" in photo_set.warnings[1]


def test_a_set_without_one_good_photo_is_shown(toy_set: Path) -> None:
    """What is wrong with each, and no gallery."""
    for file in toy_set.glob("*/*"):
        file.write_bytes(b"\xff\xd8\xff nothing")
    dataset_report.data_report(PAGE)

    assert "0 files" not in PAGE.read_text()
    assert "prepare leaves these out:\n32 damaged" in PAGE.read_text()
    assert "Outliers" not in PAGE.read_text()


def test_of_many_classes_some_are_shown(toy_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the page says how many of how many."""
    monkeypatch.setattr(dataset_report, "CHARTS", 1)
    monkeypatch.setattr(dataset_report, "CLASSES", 1)
    page = dataset_report.as_html(read())

    assert "The 1 largest classes." in page
    assert "The first 1 of 2 classes." in page


def test_the_same_photos_give_the_same_bytes(odd_set: Path) -> None:
    """No time, no path of the machine, no order of the file system."""
    dataset_report.data_report(PAGE)
    first = PAGE.read_bytes()
    dataset_report.data_report(PAGE)

    assert PAGE.read_bytes() == first
    assert str(odd_set.parent).encode() not in first


def test_no_set_is_a_clear_error(project: Path) -> None:
    """With the commands that get one; and no page is left."""
    with pytest.raises(MeadowError, match="meadow data demo"):
        dataset_report.data_report(PAGE)

    assert not PAGE.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_is_valid_accessible_and_whole(
    odd_set: Path, browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    """Names with markup are shown as they are, and run nothing."""
    dataset_report.data_report(PAGE)

    assert invalid(PAGE) == []
    with browser.visit(PAGE, size=size, scheme=scheme) as seen:
        loaded = seen.eval_on_selector_all("img", "all => all.every(each => each.naturalWidth)")
        headings = seen.locator("h3").all_inner_texts()
        assert violations(seen) == []
        assert not too_wide(seen)
    assert loaded
    assert f"{HOSTILE} class" in headings


def test_no_name_can_leave_its_place() -> None:
    """Neither text nor attribute; what cannot be printed is replaced."""
    picture = Picture("data", 1, 1, '<a href="x">\x1b\u202e', "\n<b>")
    page = html.render(
        "comparison.html",
        title="<i>",
        comparisons=[
            {"title": "", "words": [], "changes": [{"title": "&", "pictures": [picture]}]}
        ],
        tables=[],
        notes=[],
    )

    assert "&lt;a href=&#34;x&#34;&gt;\ufffd\ufffd" in page
    assert "\n&lt;b&gt;</figcaption>" in page
    assert "<title>&lt;i&gt;</title>" in page
