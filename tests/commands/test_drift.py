"""`meadow drift` over the events that a real service writes."""

import re
from pathlib import Path

import httpx
import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from PIL import Image, ImageEnhance
from toys import TINTS, encoded, photo

from meadow import cli
from meadow.commands import drift
from meadow.errors import MeadowError
from meadow.serving import server

pytestmark = pytest.mark.slow


def answered(project: Path, name: str, photos: list[Image.Image]) -> Path:
    """Have a service answer photos; return its events."""
    events = project / name
    model = str(project / "models/classifier")
    settings = {"MEADOW_MODEL": model, "MEADOW_EVENTS": str(events)}
    with (
        server.serving("meadow.service:PhotoClassifier", **settings) as url,
        httpx.Client(base_url=url) as client,
    ):
        for image in photos:
            client.post("/predict", content=encoded(image, quality=92)).raise_for_status()
    return events


def like_the_learned(count: int) -> list[Image.Image]:
    return [photo(1000 + i, TINTS[i % 2]) for i in range(count)]


def test_new_photos_like_the_learned_ones_raise_no_alarm_and_dark_ones_do(
    in_built: Path, capsys: pytest.CaptureFixture[str], browser: Browser
) -> None:
    """It says what changed, in words and on a page, and scripts see it by the status."""
    (in_built / ".dvc").mkdir()
    events = answered(in_built, "same.jsonl", like_the_learned(100))
    cli.main(["drift", "--events", str(events)])
    text = capsys.readouterr().out
    assert "none of 11 tests" in text
    assert "100 answers of model" in text
    assert re.search(r"photos of gold: estimated \d+% \(\d+% to \d+%\), labelled 50%", text)

    dark = [ImageEnhance.Brightness(image).enhance(0.7) for image in like_the_learned(100)]
    events = answered(in_built, "dark.jsonl", dark)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["drift", "--events", str(events), "--html", "drift.html"])
    assert stopped.value.code == cli.CHANGED
    text = capsys.readouterr().out
    assert re.search(r"brightness: median \d\S* instead of \d\S*, p [=<] ", text)
    page_of(in_built / "drift.html", browser)


def page_of(path: Path, browser: Browser) -> None:
    """Look at the page as everybody can: it is one file, and loads nothing."""
    assert invalid(path) == []
    assert path.stat().st_size < 1_000_000
    for size in (DESKTOP, PHONE):
        for scheme in ("light", "dark"):
            with browser.visit(path, size=size, scheme=scheme) as page:
                assert page.locator("svg").count() == 8
                assert violations(page) == []
                assert not too_wide(page)


def test_few_events_and_none_named_are_said(
    in_built: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is an alarm; the second is an error."""
    monkeypatch.delenv("MEADOW_EVENTS", raising=False)
    (in_built / "none.jsonl").touch()
    assert not drift.drift([str(in_built / "none.jsonl")], "", in_built / "drift.html")
    assert "too few, it takes 30." in capsys.readouterr().out
    assert "too few" in (in_built / "drift.html").read_text()
    with pytest.raises(MeadowError, match="no events are named"):
        drift.drift([], "", None)


def test_the_reference_is_of_train_and_val_photos_and_has_no_pixels(in_built: Path) -> None:
    """Ten numbers a photo."""
    rows = (in_built / "data/prepared/manifest.csv").read_text().splitlines()[1:]
    learned = [row for row in rows if ",test," not in row]
    size = (in_built / "models/classifier/reference.npy").stat().st_size

    assert size == 128 + 8 * 10 * len(learned)
