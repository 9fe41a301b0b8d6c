"""Networks of torchvision and timm, their weights, and what they give beside logits.

With `onnx_export` this is all of the learning side that needs PyTorch before fine-tuning starts;
what it makes for a probe is cached, so that the next experiment starts without it.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from meadow.errors import MeadowError, did_you_mean
from meadow.training import state_dict
from meadow.training.onnx_export import make_pooling_exportable, watched
from meadow.training.weights import PACKAGED, TIMM, Weights

EARLIER = slice(-3, -2)  # blocks that features have beside what the last layer sees
TEXTURE_DEPTH = 0.75  # of the blocks; see `out_of_distribution`


class Network(nn.Module):
    """A backbone with its input layer: takes the pixels that `Preprocessing` makes.

    Its output is what `backbone` gives: logits, or features where the last layer is `Identity`.

    Args:
        backbone: takes photos that are normalised, (n, 3, size, size).
        mean: of each channel, in units of 255.
        std: standard deviation of each channel, likewise.

    """

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor, blocks: list[Tensor] | None = None) -> Tensor:
        """Map uint8 or float pixels, (n, size, size, 3), 0 to 255, to (n, outputs).

        If `blocks` is given, the output of each block is appended to it: timm's networks give
        theirs, (n, c, h, w); for torchvision's see `_blocks`, their layout differs.
        """
        photos = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if blocks is None:
            outputs: Tensor = self.backbone(photos)
        elif _is_of_timm(self.backbone):
            end, maps = self.backbone.forward_intermediates(photos)
            outputs = self.backbone.forward_head(end)
            if self.backbone.num_features != maps[-1].shape[1]:  # a convolution after all blocks
                maps.append(end)
            blocks += maps
        else:
            parts = _blocks(self.backbone)
            with watched(parts) as calls:
                outputs = self.backbone(photos)
            blocks += [calls[part][1] for part in parts]
        return outputs


def build(arch: str, weights: Weights, *, classes: int, size: int, seed: int) -> Network:
    """Build a network with `classes` outputs.

    Args:
        arch: a classification model of torchvision's registry, or one of timm's as `timm/NAME`.
        weights: what its layers start from; all but the last layer are loaded.
        classes: number of outputs.
        size: side of the input, pixels.
        seed: for layers that start at random.

    Raises:
        MeadowError: no such architecture, weights of another one, it has several last layers, or it
            cannot take this size.

    """
    _check(arch)
    torch.manual_seed(seed)
    try:
        backbone = _backbone(arch, classes, size, weights)
        if any(isinstance(layer, nn.ModuleList) for layer in _last_layers(backbone).values()):
            raise MeadowError(
                f"train.arch: {arch} has several last layers, one for each of its branches; only"
                " networks with one can be used. See `python -c 'import timm; print("
                "timm.list_models())'` for others."
            )
        if weights.loaded:
            _load(backbone, weights, arch, size)
        network = Network(backbone, *_normalisation(arch, weights))
        make_pooling_exportable(network, size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise MeadowError(
            f"train.arch: {arch} cannot take photos of prepare.size {size}: {error}"
        ) from None
    return network


def _check(arch: str) -> None:
    known = torchvision.models.list_models(module=torchvision.models)
    of_timm = [TIMM + name for name in timm.list_models()]
    if arch not in known and arch.partition(".")[0] not in of_timm:
        raise MeadowError(
            f"train.arch: {arch!r} is not a classification model of torchvision, nor one of timm as"
            f" {TIMM}NAME.{did_you_mean(arch, [*known, *of_timm], most=3)} All {len(known)} of"
            f" torchvision: {', '.join(known)}. The {len(of_timm)} of timm:"
            " `python -c 'import timm; print(timm.list_models())'`."
        )


def _backbone(
    arch: str, classes: int, size: int, weights: Weights, *, pretrained: bool = False
) -> nn.Module:
    """Build a network of either library; `pretrained` has timm download its weights."""
    options: dict[str, Any] = {"num_classes": classes}
    if arch.startswith(TIMM):
        name = arch.removeprefix(TIMM)
        config: Any = timm.get_pretrained_cfg(name)
        if config.fixed_input_size and config.input_size[1:] != (size, size):
            options["img_size"] = size
        return timm.create_model(name, pretrained=pretrained, **options)
    if arch.startswith("vit_"):
        options["image_size"] = size
    elif arch.startswith("maxvit"):
        options["input_size"] = (size, size)
    elif arch in ("googlenet", "inception_v3"):
        # Their published weights expect inputs scaled to -1 .. 1; this undoes ImageNet's figures.
        options |= {"aux_logits": False, "init_weights": True, "transform_input": weights.loaded}
    network: nn.Module = torchvision.models.get_model(arch, weights=None, **options)
    return network


def _normalisation(arch: str, weights: Weights) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and standard deviation that weights expect, in units of 255."""
    if weights.source == "packaged":
        return PACKAGED[arch].mean, PACKAGED[arch].std
    if arch.startswith(TIMM):
        config: Any = timm.get_pretrained_cfg(arch.removeprefix(TIMM))
    else:
        config = torchvision.models.get_model_weights(arch).DEFAULT.transforms()
    return config.mean, config.std


def _load(backbone: nn.Module, weights: Weights, arch: str, size: int) -> None:
    current = backbone.state_dict()
    tensors = state_dict.read(weights.file) if weights.file else _download(arch, weights, size)
    if weights.source == "packaged":  # they name their tensors otherwise, but in the same order
        tensors = dict(zip(current, tensors.values(), strict=True))
    if arch.startswith("densenet"):  # torchvision's files keep the names of an older release
        tensors = {
            re.sub(r"\.(norm|conv)\.([12])\.", r".\1\2.", name): t for name, t in tensors.items()
        }
    last = tuple(f"{name}." for name in _last_layers(backbone))
    wanted = {name for name in current if not name.startswith(last)}
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


def _download(arch: str, weights: Weights, size: int) -> dict[str, Tensor]:
    library = "timm" if arch.startswith(TIMM) else "torchvision"
    try:
        if library == "timm":
            return _backbone(arch, 1, size, weights, pretrained=True).state_dict()
        published = torchvision.models.get_model_weights(arch).DEFAULT
        return dict(published.get_state_dict(progress=sys.stderr.isatty(), check_hash=True))
    except OSError as error:
        raise MeadowError(
            f"train.weights: {library}'s weights of {arch} cannot be downloaded ({error})."
            " Without a network, get the file elsewhere and run `meadow weights FILE`, or set"
            f" train.weights to packaged, and train.arch to one of {', '.join(PACKAGED)}."
        ) from None


def _is_of_timm(backbone: nn.Module) -> bool:
    return hasattr(backbone, "forward_intermediates")


def _last_layers(backbone: Any) -> dict[str, nn.Module]:
    """Return what makes the logits, by name; a distilled network of timm has two layers for it."""
    if _is_of_timm(backbone):
        classifiers = backbone.get_classifier()
        classifiers = classifiers if isinstance(classifiers, tuple) else (classifiers,)
        return {name: m for name, m in backbone.named_modules() if m in classifiers}
    layers = [(n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return dict(layers[-1:])


class Features(nn.Module):
    """What the last layer of a network sees, with the pooled output of a block before; and texture.

    The last blocks' output is in what the last layer sees; the one before them adds what is not
    yet about ImageNet's classes (Evci et al. 2022, arXiv 2201.03529). Each of the two parts is
    divided by its Euclidean length (docs/experiments.md). `out_of_distribution` needs texture.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        for name in _last_layers(network.backbone):
            network.backbone.set_submodule(name, nn.Identity())
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels, (n, size, size, 3), to features, (n, d), and texture, (n, t)."""
        blocks: list[Tensor] = []
        last = _float32(self.network(pixels, blocks).flatten(1))
        backbone = self.network.backbone
        parts = [last, *(_places(block, backbone).mean(1) for block in blocks[EARLIER])]
        directions = [nn.functional.normalize(part, eps=1e-6) for part in parts]
        return torch.cat(directions, dim=1), _texture(blocks, backbone, pixels)


class WithFeatures(nn.Module):
    """A network that also gives what its last layer sees, and texture."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels to logits, (n, classes), features, (n, d), and texture, (n, t)."""
        blocks: list[Tensor] = []
        layer, *_ = _last_layers(self.network.backbone).values()
        with watched([layer]) as calls:
            logits = self.network(pixels, blocks)
        last, _ = calls[layer]
        last = _float32(last)
        if last.ndim == 4:
            last = last.flatten(2).mean(2)
        return logits, last, _texture(blocks, self.network.backbone, pixels)


@torch.no_grad()
def _texture(blocks: Sequence[Tensor], backbone: nn.Module, pixels: Tensor) -> Tensor:
    """Return the logarithm of how much each channel of a block varies over places, (n, c)."""
    if blocks:
        places = _places(blocks[max(0, int(TEXTURE_DEPTH * len(blocks)) - 1)], backbone)
    else:  # a network without blocks (VGG, AlexNet): the texture of the photo itself
        places = (pixels.float() / 255).flatten(1, 2)
    deviation = ((places - places.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    return torch.log(deviation + 1e-3)


def _float32(output: Tensor) -> Tensor:
    """Bring what autocast has computed in bfloat16 to float32; else the graph has no node of it."""
    return output if output.dtype == torch.float32 else output.float()


def _places(output: Tensor, backbone: nn.Module) -> Tensor:
    """Bring (n, c, h, w), (n, h, w, c) or (n, places, c) to (n, places, c), float32."""
    output = _float32(output)
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
