import json
from pathlib import Path

import pytest

from meadow.serving import telemetry
from meadow.serving.settings import Settings


def test_events_are_json_lines_in_files_of_bounded_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are kept: a service that runs for a year does not fill its disk."""
    monkeypatch.setattr(telemetry, "EVERY", 0.001)
    path = tmp_path / "events/photos.jsonl"
    settings = Settings(events=path, events_size=1024)
    for number in range(40):
        writer = telemetry.Writer(settings, lambda *_: pytest.fail("dropped"))
        for _ in range(5):
            writer.event({"number": number})
        writer.close()

    files = sorted(path.parent.iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len(files) == telemetry.KEPT
    assert max(file.stat().st_size for file in files) < 1024 + 5 * 100
    assert json.loads(path.read_text().splitlines()[-1])["number"] == 39
    assert lines[0].keys() == {"time", "number"}


def test_what_cannot_be_written_is_counted_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full line, a full disk: requests go on."""
    monkeypatch.setattr(telemetry, "WAITING", 10)
    dropped = []
    (tmp_path / "file").touch()
    settings = Settings(events=tmp_path / "file/below")
    writer = telemetry.Writer(settings, lambda n=1: dropped.append(n))
    for _ in range(15):
        writer.event({})
    writer.close()

    assert sum(dropped) == 15
