import json
from pathlib import Path

import pytest

from meadow.serving import event_files


def write(path: Path, *events: object) -> None:
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events), "utf-8")


def test_the_files_are_those_of_all_workers_with_the_rotated_ones(tmp_path: Path) -> None:
    """And no other that lies beside them."""
    names = ["e.v1.jsonl", "e.v1.jsonl.4", "e.v1-2.jsonl", "e.v1-2.jsonl.1"]
    for name in (*names, "eXv1.jsonl", "e.v1.jsonl.bak", "e.v1-x.jsonl", "old-e.v1.jsonl"):
        (tmp_path / name).touch()

    assert {file.name for file in event_files.files(tmp_path / "e.v1.jsonl")} == {*names}
    assert event_files.files(tmp_path / "no/e.jsonl") == []


@pytest.mark.parametrize("chunk", [1, 40, 64, 1 << 20])
def test_a_line_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """First, last, across two chunks; with the place of its bytes."""
    monkeypatch.setattr(event_files, "CHUNK", chunk)
    path = tmp_path / "e.jsonl"
    events = [{"request_id": f"r{i % 7}", "text": "é" * i, "i": i} for i in range(40)]
    write(path, *events)
    found = list(event_files.lines(path, '"request_id": "r3"'))

    assert [line.event for line in found] == [e for e in events if e["request_id"] == "r3"]
    data = path.read_bytes()
    for line in found:
        assert json.loads(data[line.start : line.start + line.length]) == line.event


def test_what_is_no_event_or_has_no_end_yet_is_passed_over(tmp_path: Path) -> None:
    """A line that is being written, and one that somebody made up."""
    path = tmp_path / "e.jsonl"
    path.write_text(
        '{"a": "x"\n["a": "x"]\n["a", {"a": "x"}]\n{"a": "x"}\n{"a": "x", "b": 1}', "utf-8"
    )

    assert [line.event for line in event_files.lines(path, '"a": "x"')] == [{"a": "x"}]
