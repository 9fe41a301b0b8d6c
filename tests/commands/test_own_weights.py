from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from toys import SetParams

from meadow.commands import own_weights
from meadow.errors import MeadowError
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
    first, arch = own_weights.take(Path("my net.pt"))
    Path("my net.pt").rename("moved.pth")

    assert first.name.startswith("my_net-")
    assert first.suffix == ".pth"
    assert arch == ARCH
    assert (first, arch) == own_weights.take(Path("moved.pth"))
    assert Weights.of(str(first), ARCH).content.startswith(first.stem[-8:])


def test_safetensors_keep_their_name() -> None:
    """Also without the last layer, which is not loaded, or in half precision."""
    some = {name: t.half() for name, t in tensors().items() if not name.startswith("fc.")}
    save_file(some, "net.bin")

    assert own_weights.take(Path("net.bin"))[0].suffix == ".safetensors"


@pytest.mark.parametrize("left", ["conv1.", "fc."])
def test_weights_that_fit_nothing_are_not_taken(left: str) -> None:
    """Such as the head of a probe alone."""
    torch.save({n: t for n, t in tensors().items() if n.startswith(left)}, "part.pth")

    with pytest.raises(
        MeadowError, match=rf"(?s)fits neither train.arch .*does not fit {ARCH}: .* missing"
    ):
        own_weights.take(Path("part.pth"))
    assert list(FOLDER.iterdir()) == []


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("arch", ["mobilenet_v2", "squeezenet1_1"])
def test_the_architecture_is_found(arch: str, last: bool) -> None:
    """Whatever train.arch is so far, and without the layer for its classes too."""
    state = torchvision.models.get_model(arch).state_dict()
    some = {n: t for n, t in state.items() if last or not n.startswith("classifier.")}
    torch.save(some, "net.pth")

    assert own_weights.take(Path("net.pth"))[1] == arch
