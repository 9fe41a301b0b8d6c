"""Networks of torchvision's registry, their weights, and their export to ONNX.

This is the one module of the learning side that needs PyTorch before fine-tuning starts; what it
exports for a probe is cached, so that the next experiment starts without it.
"""

import io
import re
import warnings
from difflib import get_close_matches
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from meadow.errors import MeadowError
from meadow.pretrained import Weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; torchvision's presets


class Network(nn.Module):
    """A backbone with its input layer: takes the pixels that `Preprocessing` makes.

    Its output is what `backbone` gives: logits, or features where the last layer is `Identity`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map uint8 or float pixels, (n, size, size, 3), 0 to 255, to (n, outputs)."""
        outputs: Tensor = self.backbone((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std)
        return outputs


def build(arch: str, weights: Weights, *, classes: int, size: int, seed: int) -> Network:
    """Build a network with `classes` outputs.

    Args:
        arch: a classification model of torchvision's registry.
        weights: what its layers start from; all but the last layer are loaded.
        classes: number of outputs.
        size: side of the input, pixels.
        seed: for layers that start at random.

    Raises:
        MeadowError: no such architecture, weights of another one, or it cannot take this size.

    """
    known = torchvision.models.list_models(module=torchvision.models)
    if arch not in known:
        close = get_close_matches(arch, known, n=3, cutoff=0.5)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise MeadowError(
            f"train.arch: {arch!r} is not a classification model of torchvision.{hint}"
            f" All {len(known)}: {', '.join(known)}."
        )
    torch.manual_seed(seed)
    try:
        options = _options(arch, size, weights)
        backbone = torchvision.models.get_model(arch, weights=None, num_classes=classes, **options)
        if weights.loaded:
            _load(backbone, weights, arch, options)
        network = Network(backbone)
        with torch.no_grad():
            network.eval()(torch.zeros(2, size, size, 3))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise MeadowError(
            f"train.arch: {arch} cannot take photos of prepare.size {size}: {error}"
        ) from None
    return network


def _options(arch: str, size: int, weights: Weights) -> dict[str, Any]:
    if arch.startswith("vit_"):
        return {"image_size": size}
    if arch.startswith("maxvit"):
        return {"input_size": (size, size)}
    if arch in ("googlenet", "inception_v3"):
        # Their published weights expect inputs scaled to -1 .. 1; this undoes MEAN and STD.
        return {"aux_logits": False, "init_weights": True, "transform_input": weights.loaded}
    return {}


def _load(backbone: nn.Module, weights: Weights, arch: str, options: dict[str, Any]) -> None:
    found = _download(arch, options) if weights.source == "imagenet" else weights.read()
    if arch.startswith("densenet"):  # torchvision's files keep the names of an older release
        found = {
            re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): t for name, t in found.items()
        }
    own = backbone.state_dict()
    last, _ = _last_layer(backbone)
    wanted = {name for name in own if not name.startswith(f"{last}.")}
    wanted -= {name for name in wanted - found.keys() if name.endswith("num_batches_tracked")}
    missing = sorted(wanted - found.keys())
    wrong = sorted(n for n in wanted & found.keys() if found[n].shape != own[n].shape)
    if missing or wrong:
        raise MeadowError(
            f"train.weights: {weights.source} does not fit {arch}: {len(missing)} of its"
            f" {len(wanted)} tensors are missing, {len(wrong)} have another shape; the first is"
            f" {(missing + wrong)[0]}. Set train.arch to the architecture that the file is of."
        )
    backbone.load_state_dict({name: found[name] for name in wanted}, strict=False)


def _download(arch: str, options: dict[str, Any]) -> dict[str, Tensor]:
    try:
        return torchvision.models.get_model(arch, weights="DEFAULT", **options).state_dict()
    except OSError as error:
        raise MeadowError(
            f"train.weights: torchvision's weights of {arch} cannot be downloaded ({error})."
            " Without a network, get the file elsewhere and run `meadow weights FILE`."
        ) from None


def _last_layer(backbone: nn.Module) -> tuple[str, nn.Module]:
    """Return the name and module of the layer that makes the logits."""
    layers = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1]


def features(network: Network) -> Network:
    """Make the network give what its last layer saw, instead of logits."""
    name, _ = _last_layer(network.backbone)
    network.backbone.set_submodule(name, nn.Identity())
    return network.eval()


def exported(network: Network, *, size: int, output: str) -> bytes:
    """Return an ONNX model: `pixels` (n, size, size, 3) uint8 to `output` (n, k) float32.

    PyTorch's TorchScript exporter is used: in 0.3 s it makes the same bytes every time, where the
    newer one needs one more package and stores source paths in the model.
    """
    photo = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    axes = {"pixels": {0: "n"}, output: {0: "n"}}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of branches that depend on the size only
        torch.onnx.export(
            network.eval(),
            (photo,),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=[output],
            dynamic_axes=axes,
        )
    return file.getvalue()
