"""The service's page, used in a real browser on a real service as people use it."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import httpx
import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations
from playwright.sync_api import FilePayload, Page, Route, expect
from toys import colour_classifier, encoded, photo, two_colours

from meadow.pipeline.formats import NAMES
from meadow.serving import server

pytestmark = pytest.mark.slow
STATIC = Path(__file__).parents[1] / "src/meadow/serving/static"
RED, GREEN, BLUE, GREY = (180, 70, 60), (40, 200, 30), (90, 90, 255), (120, 120, 120)
LONG = "a class whose name is as long as names of plants and their varieties may well become"
EVIL = "<img src=x onerror=alert(1)>"  # folders name the classes, and may be called anything
MANY = [EVIL, *(f"between {i}" for i in range(1, 40)), LONG, "green"]
SURE = encoded(two_colours(RED, GREY), "PNG")
PHOTOS = {
    "sure.png": SURE,
    "not sure.png": encoded(two_colours(GREY, RED), "PNG"),
    "neither.png": encoded(two_colours(BLUE, GREEN), "PNG"),
    "cut off.png": SURE[: len(SURE) // 2],
    "notes.txt": b"hello",
}
ALL_KINDS = tuple(PHOTOS)
PHOTOS["pure.png"] = encoded(two_colours((255, 0, 0), GREY), "PNG")
PHOTOS["huge.jpg"] = bytes(2_200_000)
PHOTOS["large.jpg"] = encoded(photo(1, side=3000), quality=95)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "two": colour_classifier(folder / "two", ["red", "green"]),
        "many": colour_classifier(folder / "many", MANY, set_threshold=0.3),
    }


@contextmanager
def served(model: Path, **settings: str) -> Iterator[str]:
    """Serve a model by the code as it is."""
    settings = {"MEADOW_MODEL": str(model), **settings}
    with server.serving("meadow.service:PhotoClassifier", **settings) as url:
        yield url


@pytest.fixture(scope="module")
def two(browser: Browser, models: dict[str, Path]) -> Iterator[str]:
    with served(models["two"]) as url:
        yield url


@pytest.fixture(scope="module")
def many(browser: Browser, models: dict[str, Path]) -> Iterator[str]:
    with served(models["many"]) as url:
        yield url


def payload(name: str) -> FilePayload:
    """Return a photo as Playwright hands it to a page."""
    return {"name": name, "mimeType": "image/png", "buffer": PHOTOS[name]}


def choose(page: Page, *names: str) -> None:
    """Give photos by the picker, and wait until each has its answer."""
    page.set_input_files(
        "#choose",
        [payload(name) for name in names],
    )
    settled(page, len(names))


def settled(page: Page, count: int) -> None:
    expect(page.locator(".card")).to_have_count(count)
    expect(page.locator(".waiting")).to_have_count(0)


def verdicts(page: Page) -> list[str]:
    return page.locator(".verdict").all_text_contents()


TRANSFER = """(element, [event, files]) => {
    const data = new DataTransfer();
    for (const [name, content] of files)
        data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
    const options = {bubbles: true, cancelable: true};
    element.dispatchEvent(event === "paste"
        ? new ClipboardEvent("paste", {...options, clipboardData: data})
        : new DragEvent(event, {...options, dataTransfer: data}));
}"""


def transfer(page: Page, event: str, *names: str) -> None:
    """Drop or paste files, or nothing that is a file."""
    files = [(name, base64.b64encode(PHOTOS[name]).decode()) for name in names]
    page.locator("h1").evaluate(TRANSFER, [event, files])


DARKNESS = """canvas => {
    const {width, height} = canvas;
    const {data} = canvas.getContext("2d").getImageData(0, 0, width, height);
    const at = (share) => data[4 * (Math.floor(share * height) * width + share * width) + 3];
    return [at(0.2), at(0.8)];
}"""


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_photos_are_taken_wherever_they_are_dropped_or_pasted(
    browser: Browser, two: str, event: str
) -> None:
    """Several at once, in their order; a text or link is not taken for a photo."""
    with browser.visit(two) as page:
        transfer(page, event)
        expect(page.get_by_role("alert")).to_contain_text("photo")
        transfer(page, event, "sure.png", "not sure.png")
        settled(page, 2)
        expect(page.get_by_role("alert")).to_be_empty()
        assert verdicts(page) == ["red", "Not sure: red or green"]
        assert page.locator(".name").all_inner_texts() == ["sure.png", "not sure.png"]


def test_the_answer_is_the_one_that_the_api_gives(browser: Browser, two: str) -> None:
    """To the last digit: the page sends the file's own bytes, and shrinks nothing."""
    with browser.visit(two) as page:
        choose(page, "large.jpg")
        shown = json.loads(page.locator(".raw pre").text_content() or "")
    api = httpx.post(f"{two}/predict", content=PHOTOS["large.jpg"]).json()

    assert shown["probabilities"] == api["probabilities"]


def test_each_kind_of_answer_is_said_in_plain_words(browser: Browser, two: str) -> None:
    """Sure, not sure, neither; a bad file says what is wrong and leaves the others alone."""
    with browser.visit(two, refused=["/predict"]) as page:
        expect(page.locator("h1")).to_have_text("Red or green?")
        choose(page, *ALL_KINDS)
        assert verdicts(page) == [
            "red",
            "Not sure: red or green",
            "Probably neither",
            "This photo cannot be read",
            "Not a photo that this service takes",
        ]
        cards = page.locator(".card")
        expect(cards.nth(0).locator(".sure")).to_have_text(re.compile(r"^9\d(\.\d)? % sure$"))
        expect(cards.nth(0).locator(".held")).to_have_count(1)
        expect(cards.nth(1).locator(".held")).to_have_count(2)
        expect(cards.nth(2).locator(".held")).to_have_count(0)
        expect(cards.nth(4).locator(".sure")).to_have_text(f"not a {', '.join(NAMES)} file")
        expect(page.locator("#count")).to_have_text("5 photos, 2 without an answer")
        # what a screen reader says as the answers come
        log = page.get_by_role("log")
        expect(log).to_contain_text("not sure.png: Not sure: red or green.")
        expect(log).to_contain_text("notes.txt: Not a photo that this service takes.")


def test_no_answer_is_ever_a_hundred_per_cent(browser: Browser, two: str) -> None:
    """No classifier can know that."""
    with browser.visit(two) as page:
        choose(page, "pure.png")
        assert page.locator(".share").all_inner_texts() == ["over 99.9 %", "under 0.1 %"]


def test_of_many_classes_the_top_five_are_shown(browser: Browser, many: str) -> None:
    """And what the others come to; all can be looked up, and none is taken for markup."""
    with browser.visit(many) as page:
        choose(page, "pure.png", "not sure.png")
        pure = page.locator(".card").nth(0)
        expect(pure.locator(".bars li")).to_have_count(5)
        expect(pure.locator(".rest")).to_have_text(
            re.compile(r"^37 other classes together: \d+ %$")
        )
        expect(pure.locator(".class").first).to_have_text(EVIL)
        assert verdicts(page) == ["Not sure", "Not sure"]
        page.get_by_text("The model tells 42 classes apart").click()
        expect(page.locator("#classes")).to_contain_text(LONG)
        page.locator(".why").nth(0).click()
        expect(pure.locator("canvas")).to_be_visible()


def test_the_heat_map_lights_up_what_the_answer_rests_on(browser: Browser, two: str) -> None:
    """On demand, in words too; asked for once, hidden and shown again."""
    with browser.visit(two) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        choose(page, "sure.png")
        assert not [url for url in asked if url.endswith("explain")]
        page.get_by_role("button", name="Show what this rests on").click()
        canvas = page.get_by_role("img", name="Bright: the upper left")
        expect(canvas).to_be_visible()
        expect(page.locator(".because")).to_contain_text("red falls from")
        corner, middle = canvas.evaluate(DARKNESS)
        assert corner < 60 < 200 < middle
        picture, over = (
            page.locator(f".photo {name}").bounding_box() for name in ("img", "canvas")
        )
        assert picture == over
        page.get_by_role("button", name="Show the whole photo").click()
        expect(page.locator(".photo canvas")).to_be_hidden()
        page.get_by_role("button", name="Show what this rests on").click()
        expect(canvas).to_be_visible()
        assert len([url for url in asked if url.endswith("explain")]) == 1


def test_all_of_it_works_by_keyboard(browser: Browser, two: str) -> None:
    """In the order of the page, with a visible focus that is never lost."""
    with browser.visit(two) as page:
        press = page.keyboard.press
        # a listener has Chromium hand choosers over from now on, not only while one is expected
        page.on("filechooser", lambda _: None)

        def focused() -> str:
            """Return the name of what has the focus; it must be seen."""
            outline = "e => getComputedStyle(e.closest('label') ?? e).outlineStyle"
            at = page.locator(":focus")
            assert at.evaluate(outline) != "none"
            return str(at.evaluate("e => e.ariaLabel ?? (e.labels?.[0] ?? e).textContent.trim()"))

        press("Tab")
        assert focused() == "API"
        press("Tab")
        assert focused() == "Choose photos"
        with page.expect_file_chooser() as chooser:
            press("Enter")
        chooser.value.set_files([payload(name) for name in ("sure.png", "neither.png")])
        settled(page, 2)
        press("Tab")
        assert focused() == "Remove all"
        press("Tab")
        assert focused() == "Remove sure.png"
        press("Tab")
        assert focused() == "Show what this rests on"
        press("Enter")
        expect(page.locator(".because").first).to_contain_text("the upper left")
        assert focused() == "Show the whole photo"
        press("Tab")
        assert focused() == "The answer as JSON"
        press("Shift+Tab")
        press("Shift+Tab")
        press("Enter")
        assert focused() == "Remove neither.png"
        press("Enter")
        assert focused() == "Choose photos"


@pytest.mark.parametrize(
    ("model", "size", "scheme"),
    [
        ("two", DESKTOP, "light"),
        ("two", PHONE, "dark"),
        ("many", DESKTOP, "dark"),
        ("many", PHONE, "light"),
    ],
)
def test_anybody_can_read_it(
    browser: Browser,
    request: pytest.FixtureRequest,
    model: str,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    """Contrast, names, roles; no scrolling sideways on a phone, whatever the names' length."""
    url = request.getfixturevalue(model)
    with browser.visit(url, size=size, scheme=scheme, refused=["/predict"]) as page:
        assert violations(page) == []
        choose(page, *ALL_KINDS)
        for summary in page.locator("summary:visible").all():
            summary.click()
        page.locator(".why").first.click()
        expect(page.locator("canvas").first).to_be_visible()
        page.wait_for_timeout(400)  # the bars have grown
        assert violations(page) == []
        assert not too_wide(page)


def test_a_phone_offers_its_camera(browser: Browser, two: str) -> None:
    """The rear one; a desktop has no use for the button."""
    with browser.visit(two, size=PHONE, has_touch=True, is_mobile=True) as page:
        expect(page.get_by_text("Take a photo")).to_be_visible()
        assert page.locator("#camera").get_attribute("capture") == "environment"
        page.set_input_files(
            "#camera", {"name": "image.jpg", "mimeType": "image/jpeg", "buffer": SURE}
        )
        settled(page, 1)
        assert verdicts(page) == ["red"]
    with browser.visit(two) as page:
        expect(page.get_by_text("Take a photo")).to_be_hidden()


def test_a_busy_service_is_asked_again_and_a_lost_one_can_be(browser: Browser, two: str) -> None:
    """After the time that it names; the person is told only when that does not help."""
    answers = iter(["busy", "busy", "good", "lost", "good"])

    def answer(route: Route) -> None:
        match next(answers):
            case "busy":
                route.fulfill(status=429, headers={"Retry-After": "0.1"}, json={"error": {}})
            case "lost":
                route.abort()
            case _:
                route.continue_()

    with browser.visit(two, refused=["/predict"]) as page:
        page.route("**/predict", answer)
        choose(page, "sure.png")
        assert verdicts(page) == ["red"]
        page.get_by_role("button", name="Remove sure.png").click()
        choose(page, "sure.png")
        assert verdicts(page) == ["The service cannot be reached"]
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".verdict")).to_have_text("red")


def test_a_service_with_a_key_asks_for_it(browser: Browser, models: dict[str, Path]) -> None:
    """At once, and once for all photos; a wrong one is said to be wrong."""
    limits = {"MEADOW_API_KEY": "opensesame", "MEADOW_MAX_BODY": "2100000"}
    with (
        served(models["two"], **limits) as url,
        browser.visit(url, refused=["/model", "/predict"]) as page,
    ):
        key = page.get_by_label("This service asks for a key")
        expect(key).to_be_focused()
        choose(page, "sure.png", "huge.jpg")
        assert set(verdicts(page)) == {"This service asks for a key"}
        key.fill("sesame")
        key.press("Enter")
        expect(page.get_by_text("That key is not the right one.")).to_be_visible()
        key.fill("opensesame")
        key.press("Enter")
        settled(page, 2)
        expect(page.locator("h1")).to_have_text("Red or green?")
        assert verdicts(page) == ["red", "This photo is too large"]
        expect(page.locator(".sure").nth(1)).to_have_text(
            "At most 2 megabytes and 50 megapixels are taken."
        )
        expect(key).to_be_hidden()


def test_the_pages_run_no_script_but_their_own(two: str, browser: Browser) -> None:
    """The policy allows nothing inline and nothing from elsewhere."""
    for path in ("/", "/docs"):
        policy = httpx.get(f"{two}{path}").headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
    with (
        pytest.raises(AssertionError, match="violates the following Content Security Policy"),
        browser.visit(two) as page,
    ):
        page.evaluate("document.write('<script>0</script>')")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_anybody_can_read_the_docs(
    browser: Browser, two: str, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    """Swagger UI shows every endpoint once and asks it, offline and under the policy of our pages.

    What its own bundle does against the rules is not judged: white on pale colours for the methods,
    headings of level 3 below one of level 1, and fields and buttons without a name in the form.
    """
    with browser.visit(f"{two}/docs", size=size, scheme=scheme) as page:
        expect(page.locator("h1, h2").first).to_contain_text("Photo classifier")
        shown = page.locator(".opblock-summary-path").all_inner_texts()
        paths = httpx.get(f"{two}/docs.json").json()["paths"]
        assert sorted(path.replace("\u200b", "") for path in shown) == sorted(paths)
        assert not too_wide(page)
        page.locator(".opblock-summary-control").first.click()
        expect(page.locator(".opblock-body")).to_contain_text("multipart field")
        theirs = ("color-contrast", "heading-order")
        assert [fault for fault in violations(page) if not fault.startswith(theirs)] == []
        page.get_by_role("button", name="Try it out").click()
        page.set_input_files(".opblock-body input[type=file]", [payload("sure.png")])
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table")).to_contain_text('"label": "red"')


@pytest.mark.parametrize("name", ["page.html", "docs.html"])
def test_the_markup_is_valid(browser: Browser, name: str) -> None:
    """By the standard, and by its rules for accessible names and roles."""
    assert invalid(STATIC / name) == []


def test_it_says_whether_photos_are_kept(
    browser: Browser, two: str, models: dict[str, Path], tmp_path: Path
) -> None:
    """And for how long."""
    with browser.visit(two) as page:
        expect(page.locator("#kept")).to_have_text("It is not kept.")
    settings = {"MEADOW_KEEP": "far", "MEADOW_KEEP_DIR": str(tmp_path), "MEADOW_KEEP_DAYS": "7"}
    with served(models["two"], **settings) as url, browser.visit(url) as page:
        expect(page.locator("#kept")).to_contain_text("Some are kept for people to label")
        expect(page.locator("#kept")).to_contain_text("for up to 7 days.")
