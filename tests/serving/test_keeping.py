import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image
from toys import encoded, photo

from meadow.errors import MeadowError
from meadow.inference.classifier import Answer
from meadow.serving import keeping
from meadow.serving.keeping import DAY, Keeper
from meadow.serving.settings import Settings
from meadow.serving.stripping import stripped

SURE = Answer(np.array([0.9, 0.1]), np.array([True, False]), 0.5, True)
UNSURE = Answer(np.array([0.6, 0.4]), np.array([True, True]), 0.5, True)
NEITHER = Answer(np.array([0.9, 0.1]), np.array([True, False]), 1.5, False)
PHOTO = encoded(photo(1))
Make = Callable[..., Keeper]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make keepers, and end them."""
    keepers = []

    def keeper(keep: str = "unsure,far", **settings: Any) -> Keeper:
        chosen = Settings.model_validate({"keep": keep, "keep_dir": tmp_path / "kept", **settings})
        keepers.append(Keeper(chosen, ["gold", "moss"], "0123456789ab", MagicMock()))
        return keepers[-1]

    yield keeper
    for each in keepers:
        each.close()


def dropped(keeper: Keeper) -> int:
    counter: Any = keeper.telemetry.not_kept
    return int(counter.inc.call_count)


def offer(keeper: Keeper, answer: Answer, name: str = "a", data: bytes = PHOTO) -> list[str]:
    return keeper.offer(data, answer, {"request_id": name, "photo": 0})


def written(keeper: Keeper) -> list[dict[str, Any]]:
    """Wait until all is written; return what is beside the photos."""
    end = time.monotonic() + 30
    while keeper.waiting.qsize() or keeper.held:
        assert time.monotonic() < end
        time.sleep(0.01)
    return [json.loads(file.read_text()) for file in sorted(keeper.folder.glob("*.json"))]


def age(keeper: Keeper, name: str, days: float) -> None:
    for file in keeper.folder.glob(f"{name}-*"):
        os.utime(file, times=(0, time.time() - days * DAY))


def test_a_photo_is_kept_with_why_and_what_was_answered(make: Make) -> None:
    """Under its request's name, in a form that every system can hold; nothing else is written."""
    keeper = make("unsure,far")
    assert offer(keeper, SURE) == []
    assert offer(keeper, UNSURE, "a:b") == ["unsure"]
    assert offer(keeper, NEITHER, "..") == ["far"]
    first, second = sorted(written(keeper), key=lambda about: -len(about["request_id"]))
    (file,) = keeper.folder.glob("a_b-*.jpg")

    assert first.pop("time")
    assert first == {
        "request_id": "a:b", "photo": 0, "model": "0123456789ab", "kept": ["unsure"],
        "label": "gold", "probabilities": {"gold": 0.6, "moss": 0.4},
        "prediction_set": ["gold", "moss"], "in_distribution": True,
    }  # fmt: skip
    assert (second["request_id"], second["kept"]) == ("..", ["far"])
    assert file.read_bytes() == stripped(PHOTO, 10**6)[0]
    assert len(list(keeper.folder.iterdir())) == 4


def test_a_share_is_drawn_by_chance_whatever_the_answer(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample of all photos, so that the accuracy on it is the accuracy on all."""
    keeper = make("far,random:0.25")
    monkeypatch.setattr(random, "random", iter([0.3, 0.2, 0.1, 0.9]).__next__)

    assert [offer(keeper, answer) for answer in (SURE, SURE, NEITHER, UNSURE)] == [
        [], ["random"], ["far", "random"], [],
    ]  # fmt: skip


def test_the_oldest_go_first_and_the_folder_never_exceeds_its_size(make: Make) -> None:
    """On the disk, with what is beside the photos; what else lies in the folder stays."""
    keeper = make(keep_max=2**20)
    (keeper.folder / "labels.csv").write_text("photo,label\n")
    for number in range(300):
        offer(keeper, UNSURE, f"{number:03}", encoded(photo(number)))
        if number % 20 == 0:
            written(keeper)
            assert disk(keeper.folder) <= 2**20
    names = sorted(about["request_id"] for about in written(keeper))

    assert 100 < len(names) < 130
    assert names == [f"{number:03}" for number in range(300 - len(names), 300)]
    assert (keeper.folder / "labels.csv").exists()
    assert dropped(keeper) == 0


def disk(folder: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.glob("*-*"))


@pytest.mark.slow
def test_several_workers_share_a_folder(make: Make) -> None:
    """All together fill it, and no more; each may remove what another wrote."""
    keepers = [make(keep_max=2**20, workers=3) for _ in range(3)]
    for number in range(300):
        offer(keepers[number % 3], UNSURE, f"{number:03}", encoded(photo(number)))
        written(keepers[number % 3])
    for keeper in keepers:
        written(keeper)

    assert 2**19 < disk(keepers[0].folder) <= 2**20
    assert [dropped(keeper) for keeper in keepers] == [0, 0, 0]


def test_after_its_days_a_photo_goes_also_from_an_idle_service(make: Make) -> None:
    """With what is beside it, and what was never finished."""
    keeper = make(keep_days=30)
    for name in ("old", "new"):
        offer(keeper, UNSURE, name)
        written(keeper)
    (keeper.folder / "cut-0123456789ab.jpg.part").touch()
    for name, days in (("old", 31), ("new", 29), ("cut", 0.1)):
        age(keeper, name, days)
    keeper.close()
    again = make(keep_days=30)
    end = time.monotonic() + 30
    while len(list(again.folder.iterdir())) != 2:
        assert time.monotonic() < end
        time.sleep(0.01)

    assert [about["request_id"] for about in written(again)] == ["new"]


def test_it_looks_again_though_no_photo_comes(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "SWEEP", 0.05)
    keeper = make()
    offer(keeper, UNSURE, "old")
    written(keeper)
    age(keeper, "old", 31)
    end = time.monotonic() + 30
    while list(keeper.folder.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_nobody_waits_for_the_disk(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into the queue is passed over, counted, and not said to be kept."""
    stopped = threading.Event()
    monkeypatch.setattr(Keeper, "_write", lambda *_: stopped.wait())
    monkeypatch.setattr(keeping, "HELD", 10 * len(PHOTO))
    keeper = make()
    answers = [offer(keeper, UNSURE) for _ in range(15)]

    assert answers == 10 * [["unsure"]] + 5 * [[]]
    assert dropped(keeper) == 5
    stopped.set()
    written(keeper)
    assert offer(keeper, UNSURE) == ["unsure"]


def test_what_fails_is_counted_and_the_next_is_kept(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A photo that cannot be stripped, one that is larger than the folder may be."""
    keeper = make(keep_max=2**20)
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    for data in (b"no photo", PHOTO[:-2], encoded(Image.fromarray(noise), "PNG")):
        offer(keeper, UNSURE, "bad", data)
    offer(keeper, UNSURE, "good")

    assert [about["request_id"] for about in written(keeper)] == ["good"]
    assert dropped(keeper) == 3
    assert "request bad: the photo is not kept" in caplog.text
    assert not list(keeper.folder.glob("*.part"))


def test_without_a_folder_it_does_not_start(make: Make, tmp_path: Path) -> None:
    """None is named, or what is named is a file."""
    (tmp_path / "file").touch()
    with pytest.raises(MeadowError, match="MEADOW_KEEP_DIR is not"):
        make(keep_dir=None)
    with pytest.raises(MeadowError, match="no folder that can be written to"):
        make(keep_dir=tmp_path / "file")
