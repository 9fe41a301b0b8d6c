import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from meadow.errors import MeadowError
from meadow.training import state_dict

TENSORS = {"conv.weight": torch.ones(2, 3), "bn.num_batches_tracked": torch.tensor(4)}


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("sprung",)


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in TENSORS.items()}


@pytest.mark.parametrize(
    "content",
    [
        TENSORS,
        prefixed("module."),
        prefixed("_orig_mod.module."),
        {"state_dict": prefixed("model."), "epoch": 3, "optimizer": {"state": {}}},
        {"model": {"state_dict": TENSORS}},
        {"model_state_dict": TENSORS, "loss": 0.5},
    ],
    ids=["plain", "DataParallel", "compiled", "Lightning", "nested", "PyTorch's tutorial"],
)
def test_tensors_are_found_in_a_checkpoint(tmp_path: Path, content: dict[str, Any]) -> None:
    """Under the names that the network itself gives them."""
    torch.save(content, tmp_path / "x.pth")
    tensors = state_dict.read(tmp_path / "x.pth")

    assert tensors.keys() == TENSORS.keys()
    assert torch.equal(tensors["conv.weight"], TENSORS["conv.weight"])


def test_safetensors_are_known_by_their_content(tmp_path: Path) -> None:
    """Whatever the name of the file says."""
    save_file(prefixed("module."), tmp_path / "x.pth")

    assert state_dict.is_safetensors(tmp_path / "x.pth")
    assert state_dict.read(tmp_path / "x.pth").keys() == TENSORS.keys()


def saved(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (saved({}), "holds no tensors"),
        (saved([1, 2]), "holds no tensors"),
        (saved({"epoch": 1}), "'epoch', which is not a tensor"),
        (saved({"w": torch.tensor([1.0, float("nan")])}), "not finite in 'w'"),
        (saved(nn.Linear(2, 2)), "more than tensors, such as a whole model"),
        (saved({"layer": Trap()}), "more than tensors"),
        (written(pickle.dumps({"layer": Trap()})), "no file of PyTorch"),
        (written(b""), "no file of PyTorch"),
        (written(b"hello"), "no file of PyTorch"),
        (written(b"PK\3\4 half of an archive"), "damaged"),
        (written(b"\x10\0\0\0\0\0\0\0{ half of a header"), "damaged"),
        (written(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    ],
)
def test_what_holds_no_good_tensors_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], object],
    message: str,
) -> None:
    """In our own words: no code in the file runs, and no advice is to let it run."""
    monkeypatch.chdir(tmp_path)
    write(Path("x.pth"))

    with pytest.raises(MeadowError, match=message) as error:
        state_dict.read(Path("x.pth"))
    assert "weights_only" not in str(error.value)
    assert not Path("sprung").exists()


def test_a_lack_of_memory_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a failing disk."""
    torch.save(TENSORS, tmp_path / "x.pth")

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        state_dict.read(tmp_path / "x.pth")
