"""What fine-tuning starts from: a network, and the head of a probe where there are weights."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from meadow.params import Runtime, Train
from meadow.pipeline.manifest import Prepared
from meadow.training import architectures, features, probe
from meadow.training.weights import Weights


@dataclass(frozen=True)
class Head:
    """A linear head: `weight`, (d, classes), and `bias`, (classes,)."""

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


class Probed(nn.Module):
    """A probe as one network, of which the last layers can be trained further.

    First the head, then at a small rate the layers before it: so the features change no more than
    the photos ask for (LP-FT, Kumar et al. 2022, arXiv 2202.10054). The head stays, and so do
    biases, norms and their statistics: a few hundred photos give no better ones.

    Args:
        features: trained in place.
        weight: of the head, (d, classes).
        bias: (classes,).

    """

    def __init__(
        self,
        features: architectures.Features,
        weight: NDArray[np.floating],
        bias: NDArray[np.floating],
    ) -> None:
        super().__init__()
        self.features = features
        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.tensor(weight, dtype=torch.float32))
        self.register_buffer("bias", torch.tensor(bias, dtype=torch.float32))
        for tensor in features.parameters():
            tensor.requires_grad_(tensor.ndim > 1)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map pixels to logits, (n, classes), features, (n, d), and texture, (n, t)."""
        features, texture = self.features(pixels)
        with torch.autocast(pixels.device.type, enabled=False):  # logits have to be exact
            logits = features @ self.weight + self.bias
        return logits, features, texture


Served = architectures.WithFeatures | Probed


def head(p: Train, ready: Prepared, weights: Weights, runtime: Runtime) -> Head | None:
    """Return the head of a probe of the train photos alone, on features in float32."""
    if not weights.loaded:
        return None
    p = p.model_copy(update={"precision": "float32"})
    backbone, digest = features.backbone(p, weights, ready)
    photos, gpu = ready.photos("train"), features.by_gpu(p, weights, ready)
    vectors, _ = features.frozen(backbone, digest, [photos], machines=runtime.machines, gpu=gpu)
    groups = [row.group for row in photos.rows]
    examples = probe.Examples(vectors, photos.targets, groups, len(ready.classes))
    fitted = probe.fit(examples, workers=runtime.workers)
    return Head(fitted.weight, fitted.bias)


def network(
    p: Train, ready: Prepared, weights: Weights, head: Head | None
) -> tuple[architectures.Network, Served]:
    """Build the network, and what is trained and served of it, with its frozen layers."""
    size, classes = ready.preprocessing.size, len(ready.classes)
    network = architectures.build(p.arch, weights, classes=classes, size=size, seed=p.seed)
    served: Served
    if head:
        served = Probed(architectures.Features(network), head.weight, head.bias)
    else:
        served = architectures.WithFeatures(network)
    layers = list(served.parameters())
    for tensor in layers[: int(p.finetune.frozen * len(layers))]:
        tensor.requires_grad_(False)
    return network, served
