import json
import logging
import sys
import threading
from pathlib import Path

import pytest

from meadow.serving import telemetry
from meadow.serving.settings import Settings


def test_events_are_json_lines_in_files_of_bounded_size(tmp_path: Path) -> None:
    """The newest are kept: a service that runs for a year does not fill its disk."""
    path = tmp_path / "events/photos.jsonl"
    settings = Settings(events_size=1024)
    for number in range(40):
        handler = telemetry.event_file(path, settings, worker=1)
        events = telemetry.Lines(handler, lambda: pytest.fail("dropped"))
        for _ in range(5):
            events.write({"number": number})
        events.close()

    files = sorted(path.parent.iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(files) == telemetry.KEPT
    assert max(file.stat().st_size for file in files) <= 1024
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 39
    assert lines[0].keys() == {"time", "number"}


def test_what_cannot_be_written_is_counted_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A full queue, a full disk: requests go on, and the log of requests loses nothing."""
    monkeypatch.setattr(telemetry, "WAITING", 10)
    dropped: list[int] = []
    (tmp_path / "file").touch()
    handler = telemetry.event_file(tmp_path / "file/below", Settings(), worker=1)
    events = telemetry.Lines(handler, lambda: dropped.append(1))
    stdout = logging.StreamHandler(sys.stdout)
    access = telemetry.Lines(stdout, lambda: pytest.fail("dropped"))
    for _ in range(15):
        events.write({})
    access.write({"number": 14})
    events.close()
    access.close()

    assert len(dropped) == 15
    assert json.loads(capsys.readouterr().out)["number"] == 14


def test_a_reader_that_does_not_read_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is full stops the thread that writes; the queue ends at its bound."""
    monkeypatch.setattr(telemetry, "WAITING", 10)
    stopped = threading.Event()
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda _: stopped.wait())
    dropped: list[int] = []
    lines = telemetry.Lines(handler, lambda: dropped.append(1))
    for _ in range(50):
        lines.write({})
    assert 50 - 10 - 1 <= len(dropped) <= 50 - 10
    stopped.set()
    lines.close()


def test_each_of_several_workers_has_a_file_of_its_own(tmp_path: Path) -> None:
    """Two processes that rotate one file lose lines."""
    for worker in (1, 2):
        handler = telemetry.event_file(tmp_path / "events.jsonl", Settings(workers=2), worker)
        events = telemetry.Lines(handler, lambda: pytest.fail("dropped"))
        events.write({})
        events.close()

    assert sorted(file.name for file in tmp_path.iterdir()) == ["events-1.jsonl", "events-2.jsonl"]
