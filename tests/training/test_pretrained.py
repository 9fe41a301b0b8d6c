from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from toys import SetParams

from meadow.errors import MeadowError
from meadow.training import pretrained
from meadow.training.weights import FOLDER, Weights

ARCH = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def chosen(project: Path, set_params: SetParams) -> None:
    set_params(train={"arch": ARCH})


def tensors() -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torchvision.models.get_model(ARCH).state_dict()
    return tensors


def test_weights_are_kept_under_a_name_of_their_content() -> None:
    """Taken twice, or from another place, they are one file."""
    torch.save(tensors(), "my net.pt")
    first = pretrained.take(Path("my net.pt"))
    Path("my net.pt").rename("moved.pth")

    assert first.name.startswith("my_net-")
    assert first.suffix == ".pth"
    assert first == pretrained.take(Path("moved.pth"))
    assert Weights.of(str(first)).content.startswith(first.stem[-8:])


def test_safetensors_keep_their_name() -> None:
    """Also without the last layer, which is not loaded, or in half precision."""
    some = {name: t.half() for name, t in tensors().items() if not name.startswith("fc.")}
    save_file(some, "net.bin")

    assert pretrained.take(Path("net.bin")).suffix == ".safetensors"


@pytest.mark.parametrize("left", ["conv1.", "fc."])
def test_weights_that_do_not_fit_are_not_taken(left: str) -> None:
    """Such as the head of a probe alone; the message names train.arch."""
    torch.save({n: t for n, t in tensors().items() if n.startswith(left)}, "part.pth")

    with pytest.raises(MeadowError, match=rf"part\.pth does not fit {ARCH}: .*Set train\.arch"):
        pretrained.take(Path("part.pth"))
    assert list(FOLDER.iterdir()) == []
