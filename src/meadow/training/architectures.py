"""Networks of torchvision's registry, their weights, and their export to ONNX.

This is the one module of the learning side that needs PyTorch before fine-tuning starts; what it
exports for a probe is cached, so that the next experiment starts without it.
"""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
import torchvision
from onnx import ModelProto
from torch import Tensor, nn

from meadow.errors import MeadowError, did_you_mean
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
        options = _options(arch, size, weights)
        backbone = torchvision.models.get_model(arch, weights=None, num_classes=classes, **options)
        if weights.loaded:
            _load(backbone, weights, arch, options)
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
    needed: dict[str, Pooling] = {}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        def see(_pool: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            (height, width), to = inputs[0].shape[-2:], (output.shape[-2], output.shape[-1])
            if height % to[0] or width % to[1]:
                needed[name] = Pooling(height, width, to)

        return see

    pools = {n: m for n, m in network.named_modules() if isinstance(m, nn.AdaptiveAvgPool2d)}
    hooks = [pool.register_forward_hook(look(name)) for name, pool in pools.items()]
    with torch.no_grad():
        network.eval()(torch.zeros(2, size, size, 3))
    for hook in hooks:
        hook.remove()
    for name, pooling in needed.items():
        network.set_submodule(name, pooling)


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
        found: dict[str, Tensor]
        found = torchvision.models.get_model(arch, weights="DEFAULT", **options).state_dict()
        return found
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
        blocks = _blocks(backbone)
        with _watched([*blocks[-1 - EARLIER_BLOCKS : -1], *_textured(backbone)]) as seen:
            last = self.network(pixels).flatten(1)
        earlier = [seen[block] for block in blocks[-1 - EARLIER_BLOCKS : -1]]
        pooled = [_places(each, backbone).mean(1) for each in earlier]
        return torch.cat([last, *pooled], dim=1), _texture(seen, backbone, pixels)


class WithFeatures(nn.Module):
    """A network that also gives what its last layer sees, and texture."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels to logits, (n, classes), features, (n, d), and texture, (n, t)."""
        backbone = self.network.backbone
        _, layer = _last_layer(backbone)
        inputs: list[Tensor] = []
        hook = layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        with _watched(_textured(backbone)) as seen:
            logits = self.network(pixels)
        hook.remove()  # the network goes on to be trained, and copied
        last = inputs[0].flatten(2).mean(2) if inputs[0].ndim == 4 else inputs[0]
        return logits, last, _texture(seen, backbone, pixels)


@contextmanager
def _watched(blocks: list[nn.Module]) -> Iterator[dict[nn.Module, Tensor]]:
    """Collect what blocks give while the network runs."""
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        block.register_forward_hook(lambda block, _, output: seen.__setitem__(block, output))
        for block in blocks
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def _textured(backbone: nn.Module) -> list[nn.Module]:
    """Return the block whose texture counts, if the network has blocks."""
    blocks = _blocks(backbone)
    return [blocks[max(0, int(TEXTURE_DEPTH * len(blocks)) - 1)]] if blocks else []


def _texture(seen: dict[nn.Module, Tensor], backbone: nn.Module, pixels: Tensor) -> Tensor:
    """Return the logarithm of how much each channel of a block varies over places, (n, c)."""
    blocks = _textured(backbone)
    # A network without blocks (VGG, AlexNet) is judged by the texture of the photo itself.
    own = pixels.float() / 255
    places = _places(seen[blocks[0]], backbone) if blocks else own.flatten(1, 2)
    deviation = ((places - places.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    return torch.log(deviation + 1e-3)


def _places(output: Tensor, backbone: nn.Module) -> Tensor:
    """Bring (n, c, h, w), (n, h, w, c) or (n, places, c) to (n, places, c)."""
    if output.ndim == 4 and not isinstance(backbone, torchvision.models.SwinTransformer):
        return output.flatten(2).transpose(1, 2)
    return output.flatten(1, -2)


def _blocks(backbone: nn.Module) -> list[nn.Module]:
    """Return the blocks of a network: the composed parts of its sequences, outermost first."""
    found: dict[str, nn.Module] = {}
    for name, module in backbone.named_modules():
        inside = any(name.startswith(f"{block}.") for block in found)
        parent = backbone.get_submodule(name.rpartition(".")[0])
        if not inside and isinstance(parent, nn.Sequential) and list(module.children()):
            found[name] = module
    return list(found.values())


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
