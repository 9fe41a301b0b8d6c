"""Labels that come back to a running service, and what becomes of them."""

import csv
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from browser import Browser, invalid, violations
from clones import copied, runner
from toys import TINTS, colour_classifier, encoded, photo

from meadow import cli
from meadow.commands.inbox import Inbox, send
from meadow.errors import MeadowError
from meadow.serving import server

pytestmark = pytest.mark.slow
KEY = "a-key"
PAGE = (Path(__file__).parents[1] / "docs/feedback.md").read_text("utf-8")
PRINTED = "5f0c9d3e8a1b2c47"  # there, a request id
GOLD, MOSS = (encoded(photo(i, tint)) for i, tint in enumerate(TINTS[:2]))


@contextmanager
def served(model: Path, events: Path, **settings: str) -> Iterator[httpx.Client]:
    settings = {
        "MEADOW_MODEL": str(model), "MEADOW_EVENTS": str(events), "MEADOW_API_KEY": KEY, **settings
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {settings['MEADOW_API_KEY']}"} if KEY else {}
    with (
        server.serving("meadow.service:PhotoClassifier", **settings) as url,
        httpx.Client(base_url=url, headers=headers, timeout=30) as client,
    ):
        yield client


def gauges(client: httpx.Client) -> dict[str, float]:
    """Return the accuracy as Prometheus gets it."""
    lines = re.findall(
        r"^meadow_(?:accuracy|labelled).*", client.get("/metrics").text, re.MULTILINE
    )
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_labels_come_back_to_any_worker_and_survive_a_restart(tmp_path: Path) -> None:
    """The gauges have the same series from the start on, and the same values from every worker."""
    model = colour_classifier(tmp_path / "model", ["red", "green"])
    events = tmp_path / "events.jsonl"
    with served(model, events, MEADOW_WORKERS="2") as client:
        before = gauges(client)
        answer = client.post("/predict", content=GOLD)
        other = {"red": "green", "green": "red"}[answer.json()["label"]]
        given = {"request_id": answer.headers["x-request-id"], "label": other}
        taken = client.post("/feedback", json=given)
        assert taken.status_code == 200, taken.text
        assert taken.json()["answered"] == answer.json()["label"]
        assert gauges(client)['meadow_accuracy{bound="estimate",sample="all"}'] == 0
        for _ in range(6):  # new connections, which either worker may take
            with httpx.Client(base_url=client.base_url, headers=client.headers) as another:
                again = another.post("/feedback", json=given | {"label": answer.json()["label"]})
                assert again.status_code == 200, again.text
        assert again.json()["replaces"]
        after = gauges(client)
        refused = client.post("/feedback", content=b"x" * 3000)
        batch = client.post(
            "/predict/batch", files=[("files", GOLD), ("files", b"x"), ("files", MOSS)]
        )
        last = {"request_id": batch.headers["x-request-id"], "label": "red", "photo": 2}
        assert client.post("/feedback", json=last | {"photo": 1}).json()["error"]["code"] == 404
        assert client.post("/feedback", json=last).status_code == 200
        wrong = client.post("/feedback", json=last, headers={"Authorization": "Bearer another"})
    assert (refused.status_code, wrong.status_code) == (413, 401)
    assert after.keys() == before.keys()
    assert after['meadow_labelled_photos{sample="all"}'] == 1
    assert after['meadow_accuracy{bound="estimate",sample="all"}'] == 1
    assert 0 < after['meadow_accuracy{bound="low",sample="all"}'] < 0.5
    with served(model, events) as client:
        assert gauges(client)['meadow_labelled_photos{sample="all"}'] == 2


@pytest.mark.parametrize("missing", ["MEADOW_API_KEY", "MEADOW_EVENTS"])
def test_without_a_key_or_events_nobody_can_label(tmp_path: Path, missing: str) -> None:
    """An open service would let anybody write."""
    model = colour_classifier(tmp_path / "model", ["red", "green"])
    settings = {
        "MEADOW_MODEL": str(model),
        "MEADOW_EVENTS": str(tmp_path / "e"),
        "MEADOW_API_KEY": KEY,
    }
    del settings[missing]
    with server.serving("meadow.service:PhotoClassifier", **settings) as url:
        headers = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(
            f"{url}/feedback", json={"request_id": "a", "label": "red"}, headers=headers
        )
    assert answer.status_code == 403
    assert answer.json()["error"]["reason"] == "feedback_off"


def test_the_drift_report_has_the_accuracy(
    in_built: Path, capsys: pytest.CaptureFixture[str], browser: Browser
) -> None:
    """In words and on the page; of all labels, and of the fair sample alone."""
    (in_built / ".dvc").mkdir()
    events = in_built / "events.jsonl"
    with served(in_built / "models/classifier", events) as client:
        for i in range(40):
            answer = client.post(
                "/predict", content=encoded(photo(1000 + i, TINTS[i % 2]), quality=92)
            )
            if i < 20:
                given = {
                    "request_id": answer.headers["x-request-id"],
                    "label": ["gold", "moss"][i % 2],
                }
                labelled(client, given)
    cli.main(["drift", "--events", str(events), "--html", "drift.html"])
    text = capsys.readouterr().out
    line = re.search(r"20 labels came back: (\d+\.\d)% classified correctly \(\d+\.\d% to ", text)
    assert line, text
    assert "40 answers of model" in text
    assert "no events of this version" not in text
    assert "drawn at random" not in text
    assert invalid(in_built / "drift.html") == []
    with browser.visit(in_built / "drift.html") as page:
        assert "20 labels came back" in page.locator("body").inner_text()
        assert violations(page) == []


def labelled(client: httpx.Client, given: dict[str, Any]) -> None:
    response = client.post("/feedback", json=given)
    while response.status_code in (404, 429):  # pragma: no cover - a very busy machine
        time.sleep(0.2)
        response = client.post("/feedback", json=given)
    assert response.status_code == 200, response.text


def commands(section: str) -> str:
    """Return the commands of a section of docs/feedback.md."""
    (text,) = re.findall(rf"^## {section}\n.*?```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    return str(text)


def test_the_whole_loop_goes_as_the_page_says(
    first_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Answered, labelled, kept, brought into the set, prepared, forgotten."""
    project = copied(first_run, tmp_path / "project")
    run = runner(project)
    words = commands("Photos").replace("$PWD", str(project))
    settings = dict(re.findall(r"(MEADOW_\w+)=(\S+)", words))
    key = settings["MEADOW_API_KEY"]
    monkeypatch.setenv("MEADOW_API_KEY", key)
    settings["MEADOW_KEEP"] = settings["MEADOW_KEEP"].replace("0.01", "0.5")  # of few photos
    events = Path(settings["MEADOW_EVENTS"])
    settings["MEADOW_MODEL"] = str(project / "models/classifier")
    with (
        server.serving("meadow.service:PhotoClassifier", **settings) as url,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        photos = [encoded(photo(3000 + i, TINTS[i % 2])) for i in range(60)]
        answers = [client.post("/predict", content=data) for data in photos]
        ids = [answer.headers["x-request-id"] for answer in answers]
        words = commands("Labels").replace(PRINTED, ids[0]).replace("dandelion", "gold")
        time.sleep(0.3)  # in which the line of the last answer is written
        said = run("bash", "-c", words.replace("http://localhost:3000", url), **settings)
        assert json.loads(said)["label"] == "gold"
        end = time.monotonic() + 30
        while len([*project.glob("kept/*.json")]) < events.read_text("utf-8").count('"kept": '):
            assert time.monotonic() < end
            time.sleep(0.05)
        inbox = Inbox(project / "kept")  # the tests of the page press its keys
        for kept in inbox.photos.values():
            number = ids.index(kept.about["request_id"])
            inbox.decide(kept.name, ["gold", "moss"][number % 2] if number % 10 != 5 else "")
        send(inbox, url)
        labelled = [name for name, label in inbox.labels.items() if label]
        assert capsys.readouterr().out == f"{url} took {len(labelled)} labels and refused 0\n"
        drawn = sum(inbox.photos[name].random for name in labelled)
        assert gauges(client)['meadow_labelled_photos{sample="random"}'] == drawn

    run("bash", "-ec", commands("Into the set").replace("dvc repro", "dvc repro -q prepare"))
    with (project / "data/prepared/manifest.csv").open(encoding="utf-8", newline="") as file:
        split = {Path(row["path"]).name: row["split"] for row in csv.DictReader(file)}
    places: dict[object, set[object]] = {True: set(), False: set(), "dropped": set()}
    for kept in inbox.photos.values():
        places[kept.random if inbox.labels[kept.name] else "dropped"].add(split.get(kept.name))
    assert places == {True: {"train", "val", "test"}, False: {"train"}, "dropped": {None}}

    name = next(iter(inbox.photos.values())).about["request_id"]
    said = run("bash", "-c", commands("Forgetting").replace(PRINTED, name))
    assert f"{name}: 1 photos and" in said
    assert name not in events.read_text("utf-8")
    assert not list((project / "kept").glob(f"{name}*"))


def test_a_service_that_cannot_keep_what_it_is_to_keep_does_not_start(tmp_path: Path) -> None:
    """It says which setting is missing."""
    model = colour_classifier(tmp_path / "model", ["red", "green"])
    with (
        pytest.raises(MeadowError, match="MEADOW_KEEP_DIR is not"),
        served(model, tmp_path / "events.jsonl", MEADOW_KEEP="far"),
    ):
        pass
