import json
from pathlib import Path

import pytest
from toys import encoded, photo

from meadow import cli
from meadow.commands import forgetting, inbox_folder
from meadow.drift import events
from meadow.errors import MeadowError


def keep(folder: Path, request_id: str, stem: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{stem}.jpg").write_bytes(encoded(photo(1)))
    (folder / f"{stem}.json").write_text(json.dumps({"request_id": request_id}))


def line(request_id: str, **more: object) -> str:
    return json.dumps({"time": "x", "request_id": request_id, "label": "gold", **more}) + "\n"


def test_one_request_is_removed_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Photos, what is beside them, labels, and lines of the events, the rotated ones too."""
    kept, log = tmp_path / "kept", tmp_path / "events.jsonl"
    for stem in ("a_b-000000000001", "a_b-000000000002"):
        keep(kept, "a:b", stem)
    for request_id, stem in (("a_b", "a_b-000000000003"), ("a_b-c", "a_b-c-000000000004")):
        keep(kept, request_id, stem)
    inbox_folder.write(kept, {"a_b-000000000001.jpg": "gold", "a_b-000000000003.jpg": "moss"})
    others = [line("a_b"), line("c", sent={"request_id": "a:b"})]
    old = [line("a:b", label="é"), others[0]]
    new = [others[1], line("a:b", kind="feedback"), others[0], line("a:b")]
    (tmp_path / "events-2.jsonl.1").write_text("".join(old), "utf-8")
    log.write_text("".join(new), "utf-8")
    size = log.stat().st_size
    with log.open("a", encoding="utf-8") as service:  # which goes on
        monkeypatch.setenv("MEADOW_KEEP_DIR", str(kept))
        monkeypatch.setenv("MEADOW_EVENTS", str(log))
        monkeypatch.chdir(tmp_path)
        cli.main(["data", "forget", "a:b"])
        service.write(line("d"))

    assert "a:b: 2 photos and 3 lines of events are removed" in capsys.readouterr().out
    assert sorted(file.name for file in kept.iterdir()) == [
        "a_b-000000000003.jpg", "a_b-000000000003.json", "a_b-c-000000000004.jpg",
        "a_b-c-000000000004.json", "labels.csv",
    ]  # fmt: skip
    assert inbox_folder.labels(kept) == {"a_b-000000000003.jpg": "moss"}
    assert log.stat().st_size == size + len(line("d"))
    for file in (log, tmp_path / "events-2.jsonl.1"):
        left = [each for each in file.read_text("utf-8").splitlines() if each.strip()]
        assert all(json.loads(each)["request_id"] != "a:b" for each in left)
    assert [each.strip() for each in left] == [others[0].strip()]
    assert list(events.of_kind("feedback", [str(log)])) == []


def test_nothing_found_no_place_and_no_id_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who asks is not told that it was done where it was not."""
    monkeypatch.delenv("MEADOW_KEEP_DIR", raising=False)
    monkeypatch.delenv("MEADOW_EVENTS", raising=False)
    with pytest.raises(MeadowError, match="nothing is kept of request a"):
        forgetting.forget("a", tmp_path, None)
    with pytest.raises(MeadowError, match="no place is named"):
        forgetting.forget("a", None, None)
    with pytest.raises(MeadowError, match="is no request id"):
        forgetting.forget("../a", tmp_path, None)


def test_a_file_that_is_rotated_in_the_meantime_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name belongs to another file by then."""
    log = tmp_path / "events.jsonl"
    log.write_text(line("a"))
    lines = forgetting._lines(log, "a")
    log.write_text(line("b") + line("a"))
    monkeypatch.setattr(forgetting, "_lines", lambda *_: lines)
    with pytest.raises(MeadowError, match="was rotated"):
        forgetting.forget("a", None, log)
    assert log.read_text() == line("b") + line("a")
