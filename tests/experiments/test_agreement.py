"""`meadow compare --events` over events as the service writes them, and over a real service's."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy.stats import binomtest
from toys import TINTS, colour_classifier, encoded, photo

from meadow import cli
from meadow.errors import MeadowError
from meadow.experiments import agreement
from meadow.pipeline.image import Preprocessing
from meadow.serving import server


def shadow(number: int, sent: str, label: str, **values: Any) -> dict[str, Any]:
    return {
        "time": f"2026-11-25T10:00:{number % 60:02}.000+00:00",
        "kind": "shadow",
        "request_id": f"r{number}",
        "photo": 0,
        "model": "b",
        "label": label,
        "probabilities": [0.75, 0.25],
        "sent": {"model": "a", "label": sent, "confidence": 0.5 + number / 1000},
        **values,
    }


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    return str(path)


def forty() -> list[dict[str, Any]]:
    """Return events: 30 agree, 8 became moss, 2 became gold."""
    labels = [("gold", "gold")] * 20 + [("moss", "moss")] * 10
    labels += [("gold", "moss")] * 8 + [("moss", "gold")] * 2
    return [shadow(number, *pair) for number, pair in enumerate(labels)]


def test_agreement_is_told_for_all_and_by_the_label_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Wilson's intervals, as SciPy has them, and the photos by their ids."""
    source = write(tmp_path / "e", {"request_id": "r0", "label": "gold"}, *forty())
    agreement.agreement([source], as_json=True)
    (record,) = json.loads(capsys.readouterr().out)
    rows = {row["sent"]: row for row in record["agreement"]}
    interval = binomtest(20, 28).proportion_ci(0.95, "wilson")

    assert (rows[None]["photos"], rows[None]["agreed"]) == (40, 30)
    assert (rows["gold"]["low"], rows["gold"]["high"]) == pytest.approx(
        (interval.low, interval.high)
    )
    assert rows["gold"]["else"] == "moss"
    assert [one["request_id"] for one in record["differences"]] == [
        f"r{n}" for n in range(39, 29, -1)
    ]
    assert (record["labelled"], record.get("accuracy")) == (0, None)
    agreement.agreement([source])
    text = capsys.readouterr().out
    assert "No photo has feedback" in text
    assert re.search(r"r39: moss \(54%\), shadow gold \(75%\)", text)
    assert re.search(r"all +40 +75\.0% +59\.8% to 85\.8% +moss", text)


def test_which_is_right_is_told_by_feedback_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of photos that have it: mended, broken, McNemar's test; the last word of a person counts."""
    feedback = [
        {"kind": "feedback", "request_id": f"r{n}", "photo": 0, "label": "moss"}
        for n in range(28, 40)
    ]
    feedback.append({**feedback[0], "photo": 1, "label": "gold"})  # of the same batch
    first = {**feedback[2], "label": "gold"}
    source = write(tmp_path / "e", *forty(), first, *feedback)
    agreement.agreement([source], as_json=True)
    (record,) = json.loads(capsys.readouterr().out)

    assert (record["labelled"], record["mended"], record["broken"]) == (12, 8, 2)
    assert record["accuracy"]["p_value"] == pytest.approx(binomtest(2, 10).pvalue)
    agreement.agreement([source])
    assert "the shadow mends 8 and breaks 2. Accuracy +50.0 points" in capsys.readouterr().out


def test_it_takes_a_bounded_part_of_the_photos_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of millions that differ, those of which both models are surest; all are counted."""
    monkeypatch.setattr(agreement, "MOST", 3)
    (compared,) = agreement.read([write(tmp_path / "e", *forty()[::-1])])

    assert [one["request_id"] for one in compared.differences] == ["r39", "r38", "r37"]
    assert compared.photos == 40


def test_lines_that_are_none_are_passed_over_and_two_shadows_are_told_apart(tmp_path: Path) -> None:
    """After a release the events of the service have another pair of models."""
    good = shadow(1, "gold", "gold")
    wrong = [{**good, key: None} for key in ("sent", "probabilities")]
    wrong += [{"kind": "shadow"}, {"x": {"kind": "shadow"}}]
    source = write(tmp_path / "e", *wrong, [good], good, {**good, "model": "c"})

    assert [(one.shadow, one.photos) for one in agreement.read([source])] == [("b", 1), ("c", 1)]


def test_events_without_a_shadow_are_said(tmp_path: Path) -> None:
    """And so are options that do not go with events."""
    with pytest.raises(MeadowError, match="no answer of a shadow"):
        agreement.agreement([write(tmp_path / "e", {"label": "gold"})])
    (tmp_path / ".dvc").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path)
        with pytest.raises(SystemExit, match="--events goes with --json alone"):
            cli.main(["compare", "HEAD", "--events", "e"])


@pytest.mark.slow
def test_a_service_with_a_shadow_is_compared_by_its_events(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metrics have a fixed number of series, and clients see one model."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    classes = ["gold", "moss"]
    model = colour_classifier(tmp_path / "model", classes)
    second = colour_classifier(
        tmp_path / "second", classes, preprocessing=Preprocessing(48, "squash")
    )
    settings = {
        "MEADOW_MODEL": str(model),
        "MEADOW_SHADOW": str(second),
        "MEADOW_EVENTS": str(tmp_path / "events.jsonl"),
    }
    with (
        server.serving("meadow.service:PhotoClassifier", **settings) as url,
        httpx.Client(base_url=url) as client,
    ):

        def series() -> dict[str, float]:
            lines = client.get("/metrics").text.splitlines()
            pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("meadow_shadow"))
            return {name: float(value) for name, value in pairs}

        def outcomes() -> float:
            return sum(value for name, value in series().items() if "photos_total" in name)

        before = series()
        for number in range(5):
            answer = client.post("/predict", content=encoded(photo(number, TINTS[number % 2])))
            end = time.monotonic() + 30
            while outcomes() <= number:
                assert time.monotonic() < end
        assert series().keys() == before.keys()
        described = client.get("/model").json()["version"]
    assert answer.json()["model"]["version"] == described
    cli.main(["compare", "--events", "events.jsonl"])
    text = capsys.readouterr().out
    assert text.startswith("5 photos since ")
    assert f"{described} was sent to clients" in text
