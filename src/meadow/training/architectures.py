"""Networks of torchvision's registry, their weights, and their export to ONNX.

This is the one module of the learning side that needs PyTorch before fine-tuning starts; what it
exports for a probe is cached, so that the next experiment starts without it.
"""

import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision
from onnx import ModelProto
from torch import Tensor, nn

from meadow.errors import MeadowError, did_you_mean
from meadow.training import state_dict
from meadow.training.weights import Weights

EARLIER_BLOCKS = 2
TEXTURE_DEPTH = 0.75  # of the blocks; see `out_of_distribution`
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet; torchvision's presets


class Network(nn.Module):
    """A backbone with its input layer: takes the pixels that `Preprocessing` makes.

    Its output is what `backbone` gives: logits, or features where the last layer is `Identity`.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.mean: Tensor
        self.std: Tensor
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
        raise MeadowError(
            f"train.arch: {arch!r} is not a classification model of torchvision."
            f"{did_you_mean(arch, known, most=3)} All {len(known)}: {', '.join(known)}."
        )
    torch.manual_seed(seed)
    try:
        backbone = torchvision.models.get_model(
            arch, weights=None, num_classes=classes, **_options(arch, size, weights)
        )
        if weights.loaded:
            _load(backbone, weights, arch)
        network = Network(backbone)
        _make_pooling_exportable(network, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise MeadowError(
            f"train.arch: {arch} cannot take photos of prepare.size {size}: {error}"
        ) from None
    return network


class Pooling(nn.Module):
    """Adaptive average pooling of one input size, as two products with constant matrices.

    ONNX has no word for `nn.AdaptiveAvgPool2d` where its bins are of unequal or less than one
    place: VGG and AlexNet below their usual 224 px.
    """

    def __init__(self, height: int, width: int, to: tuple[int, int]) -> None:
        super().__init__()
        self.rows: Tensor
        self.columns: Tensor
        for name, places, bins in (("rows", height, to[0]), ("columns", width, to[1])):
            share = nn.functional.adaptive_avg_pool1d(torch.eye(places), bins)
            self.register_buffer(name, share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, height, width) to (n, c, *to)."""
        pooled: Tensor = self.rows.T @ (x @ self.columns)
        return pooled


def _make_pooling_exportable(network: Network, size: int) -> None:
    """Run the network once at this size; replace the adaptive pooling that needs it.

    Raises:
        RuntimeError, ValueError, AssertionError: it cannot take this size.

    """
    names = {module: name for name, module in network.named_modules()}
    pools = [module for module in names if isinstance(module, nn.AdaptiveAvgPool2d)]
    with torch.no_grad(), _watched(pools) as calls:
        network.eval()(torch.zeros(2, size, size, 3))
    for pool, (given, pooled) in calls.items():
        (height, width), (rows, columns) = given.shape[-2:], pooled.shape[-2:]
        if height % rows or width % columns:
            network.set_submodule(names[pool], Pooling(height, width, (rows, columns)))


def _options(arch: str, size: int, weights: Weights) -> dict[str, Any]:
    if arch.startswith("vit_"):
        return {"image_size": size}
    if arch.startswith("maxvit"):
        return {"input_size": (size, size)}
    if arch in ("googlenet", "inception_v3"):
        # Their published weights expect inputs scaled to -1 .. 1; this undoes MEAN and STD.
        return {"aux_logits": False, "init_weights": True, "transform_input": weights.loaded}
    return {}


def _load(backbone: nn.Module, weights: Weights, arch: str) -> None:
    file = None if weights.source == "imagenet" else Path(weights.source)
    tensors = state_dict.read(file) if file else _download(arch)
    if arch.startswith("densenet"):  # torchvision's files keep the names of an older release
        tensors = {
            re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): t for name, t in tensors.items()
        }
    current = backbone.state_dict()
    last, _ = _last_layer(backbone)
    wanted = {name for name in current if not name.startswith(f"{last}.")}
    wanted -= {name for name in wanted - tensors.keys() if name.endswith("num_batches_tracked")}
    missing = sorted(wanted - tensors.keys())
    wrong = sorted(n for n in wanted & tensors.keys() if tensors[n].shape != current[n].shape)
    if missing or wrong:
        raise MeadowError(
            f"train.weights: {weights.source} does not fit {arch}: {len(missing)} of its"
            f" {len(wanted)} tensors are missing, {len(wrong)} have another shape; the first is"
            f" {(missing + wrong)[0]}. Set train.arch to the architecture that the file is of."
        )
    backbone.load_state_dict({name: tensors[name] for name in wanted}, strict=False)


def _download(arch: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(arch).DEFAULT
    try:
        return dict(weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except OSError as error:
        raise MeadowError(
            f"train.weights: torchvision's weights of {arch} cannot be downloaded ({error})."
            " Without a network, get the file elsewhere and run `meadow weights FILE`."
        ) from None


def _last_layer(backbone: nn.Module) -> tuple[str, nn.Module]:
    """Return the name and module of the layer that makes the logits."""
    layers = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return layers[-1]


class Features(nn.Module):
    """What the last layer of a network sees, with the pooled outputs of blocks before; and texture.

    The last block's output is in what the last layer sees; the two before it add what is not
    yet about ImageNet's classes (Evci et al. 2022, arXiv 2201.03529). On the 400 photos, nested
    cross-validation: accuracy 0.957 to 0.968, log-loss 0.113 to 0.100. `out_of_distribution`
    needs texture.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        name, _ = _last_layer(network.backbone)
        network.backbone.set_submodule(name, nn.Identity())
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels, (n, size, size, 3), to features, (n, d), and texture, (n, t)."""
        backbone = self.network.backbone
        earlier = _blocks(backbone)[-1 - EARLIER_BLOCKS : -1]
        with _watched([*earlier, *_textured(backbone)]) as calls:
            last = self.network(pixels).flatten(1)
        pooled = [_places(calls[block][1], backbone).mean(1) for block in earlier]
        return torch.cat([last, *pooled], dim=1), _texture(calls, backbone, pixels)


class WithFeatures(nn.Module):
    """A network that also gives what its last layer sees, and texture."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels to logits, (n, classes), features, (n, d), and texture, (n, t)."""
        backbone = self.network.backbone
        _, layer = _last_layer(backbone)
        with _watched([layer, *_textured(backbone)]) as calls:
            logits = self.network(pixels)
        last, _ = calls[layer]
        if last.ndim == 4:
            last = last.flatten(2).mean(2)
        return logits, last, _texture(calls, backbone, pixels)


Calls = dict[nn.Module, tuple[Tensor, Tensor]]


@contextmanager
def _watched(modules: Sequence[nn.Module]) -> Iterator[Calls]:
    """Collect what modules take and give while the network runs."""
    calls: Calls = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = (inputs[0], output)

    with ExitStack() as hooks:  # they go, also on an error: the network is trained on, and copied
        for module in modules:
            hooks.callback(module.register_forward_hook(note).remove)
        yield calls


def _textured(backbone: nn.Module) -> list[nn.Module]:
    """Return the block whose texture counts, if the network has blocks."""
    blocks = _blocks(backbone)
    return [blocks[max(0, int(TEXTURE_DEPTH * len(blocks)) - 1)]] if blocks else []


def _texture(calls: Calls, backbone: nn.Module, pixels: Tensor) -> Tensor:
    """Return the logarithm of how much each channel of a block varies over places, (n, c)."""
    blocks = _textured(backbone)
    # A network without blocks (VGG, AlexNet) is judged by the texture of the photo itself.
    photo = (pixels.float() / 255).flatten(1, 2)
    places = _places(calls[blocks[0]][1], backbone) if blocks else photo
    deviation = ((places - places.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    return torch.log(deviation + 1e-3)


def _places(output: Tensor, backbone: nn.Module) -> Tensor:
    """Bring (n, c, h, w), (n, h, w, c) or (n, places, c) to (n, places, c)."""
    if output.ndim == 4 and not isinstance(backbone, torchvision.models.SwinTransformer):
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, -2)


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: the composed parts of its sequences, outermost first."""
    blocks: dict[str, nn.Module] = {}
    for name, module in backbone.named_modules():
        inside = any(name.startswith(f"{block}.") for block in blocks)
        parent = backbone.get_submodule(name.rpartition(".")[0])
        if not inside and isinstance(parent, nn.Sequential) and list(module.children()):
            blocks[name] = module
    return list(blocks.values())


def exported(network: nn.Module, *, size: int, outputs: Sequence[str]) -> ModelProto:
    """Return an ONNX model: `pixels` (n, size, size, 3) uint8 to `outputs` (n, k) float32.

    PyTorch's TorchScript exporter is used: in 0.3 s it makes the same bytes every time, where the
    newer one needs one more package and stores source paths in the model.
    """
    photo = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    axes = {name: {0: "n"} for name in ("pixels", *outputs)}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of branches that depend on the size only
        file = Path(folder, "network.onnx")
        torch.onnx.export(
            network.eval(),
            (photo,),
            str(file),  # a path object would end at 2 GiB
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        return onnx.load(file)
