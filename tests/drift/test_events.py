import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meadow.drift import events
from meadow.drift.comparison import compare
from meadow.drift.tally import Tally
from meadow.errors import MeadowError
from meadow.inference.reference import FILE, FORMER, Reference
from meadow.inference.signals import LATER, SIGNALS

VERSION = "0123456789ab" + 52 * "0"
CLASSES = ["gold", "moss"]


def event(number: int, **values: object) -> dict[str, Any]:
    """Return what the service writes of one photo."""
    return {
        "time": f"2026-11-25T10:{number // 60:02}:{number % 60:02}.000+00:00",
        "model": VERSION[:12],
        "label": CLASSES[number % 2],
        "probabilities": [0.9, 0.1],
        **dict.fromkeys(SIGNALS[1:], number),
        **values,
    }


def write(path: Path, *lines: object) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), "utf-8")


def counted(*sources: str, since: str = "") -> tuple[Tally, events.Passed]:
    signals = {name: np.arange(50.0) for name in SIGNALS}
    tally = Tally(Reference(signals, np.zeros(50, int), np.zeros(50, int)), 2)
    return tally, events.count(sources, tally, CLASSES, VERSION, since)


def test_rotated_files_are_read_first_the_oldest_before_all(tmp_path: Path) -> None:
    """As the service's handler numbers them; another log beside them is not read."""
    for name, first in (("e.jsonl.2", 0), ("e.jsonl.1", 20), ("e.jsonl", 40), ("e.jsonl.bak", 60)):
        write(tmp_path / name, *(event(i) for i in range(first, first + 20)))
    tally, _ = counted(str(tmp_path / "e.jsonl"))

    assert tally.total == 60
    assert [time[14:19] for time in tally.times] == ["00:00", "00:16", "00:32", "00:48"]
    assert counted(str(tmp_path / "e.jsonl.1"), str(tmp_path / "e.jsonl.2"))[0].total == 40


def test_what_is_no_event_of_this_model_is_counted_and_passed_over(tmp_path: Path) -> None:
    """A line cut off by a full disk, one of a service before, or one that somebody made up."""
    wrong = [
        "", "{", "[]", "1", '{"time": 1}', "[" * 100_000,
        event(1, label="plum"), event(1, bytes="x"), event(1, distance=float("nan")),
        event(1, probabilities=[]), event(1, model=VERSION[:12], brightness=None), event(1, time=5),
    ]  # fmt: skip
    write(tmp_path / "e", *wrong, event(2), event(3, model="another"), event(4, model="another"))
    tally, passed = counted(str(tmp_path / "e"))

    assert tally.total == 1
    assert passed.damaged == len(wrong)
    assert (passed.of_other_models, passed.other_models) == (2, {"another"})


def test_events_before_a_time_do_not_count(tmp_path: Path) -> None:
    """Given as people write it, in any time zone."""
    write(tmp_path / "e", *(event(i) for i in range(60)))
    since = events.utc("2026-11-25T11:00:40+01:00")
    tally, passed = counted(str(tmp_path / "e"), since=since)

    assert (tally.total, passed.earlier) == (20, 40)
    with pytest.raises(MeadowError, match="'yesterday' is no time"):
        events.utc("yesterday")


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """A file that is not there, an address of a protocol that nobody knows."""
    for source in (str(tmp_path / "no"), "no-such://host/file"):
        with pytest.raises(MeadowError, match=source):
            counted(source)


def test_an_address_is_read_too(tmp_path: Path) -> None:
    """By fsspec, as DVC does."""
    write(tmp_path / "e", event(1))

    assert counted((tmp_path / "e").as_uri())[0].total == 1


def label(number: int, request_id: str, **values: object) -> dict[str, Any]:
    """Return what the service writes of a label that came back."""
    answered = event(number)
    return {
        "time": answered["time"], "kind": "feedback", "request_id": request_id, "photo": 0,
        "model": VERSION[:12], "label": "gold", "answered": "gold",
        "answered_at": answered["time"], "random": False, **values,
    }  # fmt: skip


def test_of_two_labels_of_one_photo_the_later_holds(tmp_path: Path) -> None:
    """In whatever file it lies; those of answers before the time do not count."""
    earlier = event(0)["time"]
    write(tmp_path / "1", label(9, "a", label="moss"), label(2, "b"), event(3))
    write(tmp_path / "2", label(5, "a"), label(6, "a", photo=1, random=True), "   ")
    write(tmp_path / "3", label(8, "c", answered_at=earlier), label(8, "d", model="another"))
    tally, passed = counted(*(str(tmp_path / name) for name in "123"), since=event(1)["time"])

    assert (tally.total, passed.damaged, passed.earlier, passed.of_other_models) == (1, 0, 1, 1)
    assert {key: (e.correct, e.random) for key, e in passed.labels.items()} == {
        ("a", 0): (False, False), ("a", 1): (True, True), ("b", 0): (True, False)
    }  # fmt: skip


def test_of_very_many_labels_the_latest_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory has a bound."""
    monkeypatch.setattr(events, "LABELS", 3)
    write(tmp_path / "e", *(label(i, f"{i}") for i in range(9)), label(9, "6"))

    assert [key[0] for key in counted(str(tmp_path / "e"))[1].labels] == ["7", "8", "6"]


def test_events_and_references_of_an_older_version_are_compared_by_what_they_have(
    tmp_path: Path,
) -> None:
    """Those had neither detail nor side; what both have is compared, and no line is damaged."""
    random = np.random.default_rng(0)
    older = [{k: v for k, v in event(i).items() if k not in LATER} for i in range(40)]
    write(tmp_path / "e", *older)
    tally, passed = counted(str(tmp_path / "e"))
    known = Reference({name: random.random(50) for name in SIGNALS}, *np.zeros((2, 50), int))
    np.save(tmp_path / FILE, random.random((len(FORMER) + 2, 60)).round(1))
    former = Reference.load(tmp_path)

    assert (tally.total, passed.damaged) == (40, 0)
    names = {finding.name for finding in compare(tally, known)}
    assert names == {*SIGNALS, "far", "predicted", "together"} - {*LATER}
    assert former.signals.keys() == {*SIGNALS} - {*LATER}
    write(tmp_path / "new", *(event(i) for i in range(40)))
    tally = Tally(former, 2)
    assert events.count([str(tmp_path / "new")], tally, CLASSES, VERSION).damaged == 0
    assert {finding.name for finding in compare(tally, former)} == names
