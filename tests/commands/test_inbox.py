"""The inbox, used in a real browser as people use it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
import uvicorn
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from playwright.sync_api import expect
from starlette.testclient import TestClient
from toys import TINTS, encoded, photo

from meadow.commands import inbox
from meadow.commands.inbox import Inbox
from meadow.commands.inbox_folder import LABELS
from meadow.errors import MeadowError
from meadow.pipeline.intervals import wilson
from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent

CLASSES = ["<b>gold</b>", "a class with a long name " * 4, "moss"]
GOLD, LONG, MOSS = CLASSES
KEY = "key"


def keep(folder: Path, number: int, classes: list[str] = CLASSES, **about: Any) -> str:
    """Write a photo as the service does; return its name."""
    folder.mkdir(exist_ok=True)
    stem = f"r{number}-{number:012x}"
    (folder / f"{stem}.jpg").write_bytes(encoded(photo(number, TINTS[number % 2])))
    shares = {name: 0.6 if name == classes[-1] else 0.4 / (len(classes) - 1) for name in classes}
    content = {
        "request_id": f"r{number}", "photo": 0, "model": "0123456789ab",
        "time": f"2026-11-25T10:00:{number:02}.000+00:00", "kept": ["unsure"],
        "label": classes[-1], "probabilities": shares, "prediction_set": classes[-2:],
        "in_distribution": True, **about,
    }  # fmt: skip
    (folder / f"{stem}.json").write_text(json.dumps(content), "utf-8")
    return f"{stem}.jpg"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        keep(tmp_path / "kept", number, kept=["random", "far"] if number % 2 else ["unsure"])
    return tmp_path / "kept"


@contextmanager
def shown(folder: Path) -> Iterator[str]:
    """Answer on the loopback; yield the page's URL."""
    port = free_port()
    app = inbox.create(Inbox(folder), KEY)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}/{KEY}/"
    finally:
        server.should_exit = True
        thread.join()


def rows(folder: Path) -> list[str]:
    return (folder / LABELS).read_text("utf-8").splitlines()


@pytest.mark.slow
def test_one_key_labels_a_photo_and_it_is_written_at_once(folder: Path, browser: Browser) -> None:
    """One a class, drop, next, undo; the table is what `meadow data import --labels` reads."""
    names = sorted(file.name for file in folder.glob("*.jpg"))
    with shown(folder) as url, browser.visit(url) as page:
        expect(page.locator("#progress")).to_have_text("0 of 4 photos")
        expect(page.get_by_role("img")).to_have_attribute("src", f"photos/{names[0]}")
        expect(page.locator("#answer")).to_have_text(
            "The model says moss, 60 %, or one of 2 classes"
        )
        expect(page.locator("#why")).to_have_text("Kept because the model is not sure.")
        page.keyboard.press("1")
        expect(page.locator("#progress")).to_have_text("1 of 4 photos")
        assert rows(folder) == ["photo,label", f"{names[0]},{GOLD}"]
        expect(page.locator("#why")).to_have_text(
            "Kept because it was drawn at random, and it is unlike what the model learned from."
        )
        page.keyboard.press("n")
        expect(page.get_by_role("img")).to_have_attribute("src", f"photos/{names[2]}")
        page.keyboard.press("x")
        expect(page.locator("#progress")).to_have_text("2 of 4 photos")
        assert rows(folder)[2:] == [f"{names[2]},"]
        page.keyboard.press("u")
        expect(page.locator("#progress")).to_have_text("1 of 4 photos")
        expect(page.get_by_role("img")).to_have_attribute("src", f"photos/{names[2]}")
        assert rows(folder)[2:] == []
        page.keyboard.press("u")  # back to the one that was left for later
        expect(page.get_by_role("img")).to_have_attribute("src", f"photos/{names[1]}")
        page.keyboard.press("3")
        expect(page.locator("#progress")).to_have_text("2 of 4 photos")
        low, high = wilson(1, 1)
        expect(page.locator("#accuracy")).to_have_text(
            "Of 1 photo drawn at random and labelled 1 was classified correctly: 100.0 %, of many"
            f" more {100 * low:.0f} % to {100 * high:.1f} % (95 % interval)."
        )
        page.keyboard.press("2")
        expect(page.locator("#progress")).to_have_text("3 of 4 photos")
        page.keyboard.press("3")
        expect(page.locator("#end")).to_contain_text("Nothing is left")
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#progress")).to_have_text("3 of 4 photos")
    with shown(folder) as url, browser.visit(url) as page:  # the next day
        expect(page.get_by_role("img")).to_have_attribute("src", f"photos/{names[3]}")
        page.get_by_role("button", name="<b>gold</b>").click()
        expect(page.locator("#progress")).to_have_text("4 of 4 photos")
    assert rows(folder) == [
        "photo,label", f"{names[0]},{GOLD}", f"{names[1]},{MOSS}", f"{names[2]},{LONG}",
        f"{names[3]},{GOLD}",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_cannot_be_written_is_said_and_the_photo_stays(folder: Path, browser: Browser) -> None:
    """Nobody labels into nothing."""
    with shown(folder) as url, browser.visit(url, refused=[f"/{KEY}/label"]) as page:
        page.route("**/label", lambda route: route.abort())
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_contain_text("It was not written")
        expect(page.locator("#progress")).to_have_text("0 of 4 photos")
        page.unroute("**/label")
        page.keyboard.press("1")
        expect(page.get_by_role("alert")).to_be_empty()
        expect(page.locator("#progress")).to_have_text("1 of 4 photos")


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_anybody_can_read_it(
    tmp_path: Path, browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    """With many classes too, of which the first have keys; and when nothing is left."""
    many = [*CLASSES, *(f"class {i}" for i in range(60))]
    keep(tmp_path / "kept", 1, many)
    with shown(tmp_path / "kept") as url, browser.visit(url, size=size, scheme=scheme) as page:
        expect(page.locator("#classes button")).to_have_count(63)
        expect(page.locator("#classes kbd")).to_have_count(33)
        assert violations(page) == []
        assert not too_wide(page)
        page.keyboard.press("x")
        expect(page.locator("#done")).to_be_visible()
        assert violations(page) == []


@pytest.mark.slow
def test_the_markup_is_valid() -> None:
    assert invalid(inbox.STATIC / "inbox.html") == []


def client(folder: Path, **options: Any) -> TestClient:
    app = inbox.create(Inbox(folder), KEY)
    return TestClient(app, base_url=f"http://127.0.0.1/{KEY}/", **options)


@pytest.mark.parametrize(
    ("send", "status"),
    [
        (lambda web: web.post("label", json={"photo": "../x.jpg", "label": ""}), 400),
        (lambda web: web.post("label", json={"photo": web.first, "label": "lily"}), 400),
        (lambda web: web.post("label", json=[1]), 400),
        (lambda web: web.post("label", content=b"{"), 400),
        (lambda web: web.post("label", content=b" " * 5000), 413),
        (lambda web: web.get("label"), 405),
        (lambda web: web.get("photos/labels.csv"), 404),
        (lambda web: web.get("photos/%2e%2e%2fsecret.jpg"), 404),
        (lambda web: web.get("http://127.0.0.1/photos"), 404),
        (lambda web: web.get("http://127.0.0.1/"), 404),
        (lambda web: web.get("photos", headers={"Host": "evil.example"}), 400),
    ],
)
def test_nobody_else_reads_or_writes(
    folder: Path, send: Callable[[Any], httpx.Response], status: int
) -> None:
    """Without the key nothing is there, another site's name is refused, no other file is sent."""
    web: Any = client(folder)
    web.first = next(folder.glob("*.jpg")).name
    assert send(web).status_code == status
    assert not (folder / LABELS).exists()


def test_the_page_loads_nothing_from_elsewhere(folder: Path) -> None:
    """By its policy, and photos are nothing but photos."""
    web = client(folder)
    name = next(folder.glob("*.jpg")).name
    for path in ("./", f"photos/{name}"):
        assert "default-src 'none'" in web.get(path).headers["content-security-policy"]


def test_it_gets_a_bounded_part_of_the_photos(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest of those that wait."""
    monkeypatch.setattr(inbox, "LISTED", 2)
    web = client(folder)
    assert [each["request_id"] for each in web.get("photos").json()["waiting"]] == ["r0", "r1"]
    web.post("label", json={"photo": next(folder.glob("r0-*.jpg")).name, "label": ""})
    assert [each["request_id"] for each in web.get("photos").json()["waiting"]] == ["r1", "r2"]


def test_what_is_no_inbox_is_said(tmp_path: Path, folder: Path) -> None:
    """No folder, no photos, a table or a sidecar that is something else."""
    (tmp_path / "empty").mkdir()
    for path, words in ((tmp_path / "no", "no folder"), (tmp_path / "empty", "has no photos")):
        with pytest.raises(MeadowError, match=words):
            Inbox(path)
    (folder / LABELS).write_text("path,class\n")
    with pytest.raises(MeadowError, match="has not the columns photo, label"):
        Inbox(folder)
    (folder / LABELS).unlink()
    next(folder.glob("*.json")).write_text('{"request_id": 1}')
    with pytest.raises(MeadowError, match="is not what the service writes"):
        Inbox(folder)


@pytest.mark.slow
def test_the_command_prints_the_address_and_ends_with_ctrl_c(folder: Path) -> None:
    """In any folder, a project or not."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("meadow"), "data", "inbox", folder],
        stdout=subprocess.PIPE, text=True, cwd=folder, env={**os.environ},
        preexec_fn=end_with_parent,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    match = re.match(r"(http://127\.0\.0\.1:\d+/\S{20,}/) shows 4 photos", line)
    assert match
    transport = httpx.HTTPTransport(retries=5)
    with httpx.Client(transport=transport, base_url=match[1]) as web:
        while True:
            try:
                name = web.get("photos").json()["waiting"][0]["name"]
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert web.post("label", json={"photo": name, "label": MOSS}).status_code == 200
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "1 of 4 photos are decided on. Next: `meadow data import --add" in rest
