import threading
from collections.abc import Callable

import pytest
import torch
from toys import SetParams

from meadow import params
from meadow.errors import MeadowError
from meadow.training import device
from meadow.training.device import Device, ahead

Choose = Callable[..., Device]


@pytest.fixture
def chosen(project: object, set_params: SetParams, monkeypatch: pytest.MonkeyPatch) -> Choose:
    """Return what gives the device of these parameters on a machine with these GPUs."""

    def choose(*gpus: str, **train: str) -> Device:
        for kind in device.GPUS:
            there = kind in gpus
            monkeypatch.setattr(getattr(torch, kind), "is_available", lambda there=there: there)
        set_params(train=train)
        return Device.of(params.load().train)

    return choose


def test_auto_is_a_gpu_in_bfloat16_where_there_is_one(chosen: Choose) -> None:
    """Else the CPU in float32, as it is without being asked."""
    assert chosen(device="auto") == device.CPU
    assert chosen("mps", device="auto") == Device("mps", torch.bfloat16)
    assert chosen("mps", device="cpu") == device.CPU


def test_the_format_is_the_one_that_is_asked_for(chosen: Choose) -> None:
    """On every device."""
    assert chosen("mps", device="mps", autocast="float32").dtype == torch.float32
    assert chosen(device="cpu", autocast="bfloat16").dtype == torch.bfloat16


def test_a_device_that_is_not_there_is_refused_with_those_that_are(chosen: Choose) -> None:
    """And with what to set."""
    with pytest.raises(MeadowError, match=r"train\.device: cuda is not there.*sees mps, cpu here"):
        chosen("mps", device="cuda")


def test_the_model_says_what_it_was_computed_on_unless_all_machines_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Float32 on a CPU is not mentioned, so that model.json has the same bytes on all of them."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    gpu = Device("cuda", torch.bfloat16)

    assert device.CPU.about == {}
    assert Device(dtype=torch.bfloat16).about == {"autocast": "bfloat16"}
    assert gpu.about == {"device": "cuda (NVIDIA L4)", "autocast": "bfloat16"}


def test_each_device_and_format_has_a_key_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else features or checkpoints of two of them would be mixed; it is a part of file names."""
    keys = []
    for name in ("NVIDIA L4", "NVIDIA H100 80GB HBM3"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda name=name: name)
        keys += [Device("cuda", kind).key for kind in (torch.float32, torch.bfloat16)]
    keys += [Device(dtype=kind).key for kind in (torch.float32, torch.bfloat16)]

    assert len(set(keys)) == 6
    assert not [key for key in keys if "/" in key or " " in key]


def test_the_next_item_is_loaded_while_one_is_worked_on() -> None:
    """All of them, in order, and no more than two ahead."""
    loaded = {item: threading.Event() for item in range(6)}

    def load(item: int) -> int:
        loaded[item].set()
        return item

    for item in ahead(load, range(6)):
        assert all(loaded[later].wait(60) for later in range(item, min(item + 3, 6)))
        assert not any(loaded[later].is_set() for later in range(item + 3, 6))
    assert list(ahead(load, range(4))) == [0, 1, 2, 3]
    assert list(ahead(load, [])) == []


def test_what_fails_while_it_is_loaded_ahead_fails_for_the_reader() -> None:
    """An error is not lost with the thread."""
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda item: 1 / item, [1, 0, 1]))
