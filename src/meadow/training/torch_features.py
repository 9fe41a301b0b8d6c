"""Outputs of a network by PyTorch in batches: what a GPU computes in place of ONNX Runtime.

On a CPU each photo is a run of ONNX Runtime, to the bits that serving computes; a GPU would idle.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from meadow.params import Train
from meadow.pipeline.cpu import cores
from meadow.pipeline.manifest import Photos
from meadow.training import architectures
from meadow.training.data_parallel import DataParallel
from meadow.training.device import Device, ahead
from meadow.training.weights import Weights

BATCH = 128  # photos
Row = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Backbone:
    """A frozen backbone that a device computes; the network is built when it is needed.

    Attributes:
        p: section `train`.
        weights: what it has.
        size: side of the photos, pixels.
        device: what computes.

    """

    p: Train
    weights: Weights
    size: int
    device: Device

    def outputs(self, photos: Sequence[tuple[Photos, int]]) -> Iterator[Row]:
        """Yield features, (d,), and texture, (t,), of each photo, in order."""
        network = architectures.build(
            self.p.arch, self.weights, classes=2, size=self.size, seed=self.p.seed
        )
        return outputs(architectures.Features(network), photos, self.device)


def outputs(
    network: nn.Module, photos: Sequence[tuple[Photos, int]], device: Device
) -> Iterator[Row]:
    """Yield the outputs of a network, (k,) each, for each photo, in order.

    All batches have `BATCH` photos, the last one with empty ones: so a GPU computes each photo in
    the same way, whichever others are computed with it.

    Args:
        network: gives a tuple of (n, k) each; it is brought to the device.
        photos: of a split, and their places there.
        device: what computes.

    Raises:
        MeadowError: the device's memory ends.

    """
    network.to(device.kind).to(memory_format=device.memory_format)
    replicas = DataParallel(network, cores(), device)
    widths: list[int] = []

    def load(start: int) -> Tensor:
        batch = photos[start : start + BATCH]
        pixels = np.zeros((BATCH, *batch[0][0].pixels.shape[1:]), np.uint8)
        for place, (part, i) in enumerate(batch):
            pixels[place] = part.pixels[i]
        return device.pinned(torch.from_numpy(pixels))

    def run(pixels: Tensor, net: nn.Module, rows: slice) -> Tensor:
        parts = [part.flatten(1).float() for part in net(device.sent(pixels[rows]))]
        widths[:] = [part.shape[1] for part in parts]
        return torch.cat(parts, 1)

    def results() -> Iterator[Tensor]:
        under_way: deque[Tensor] = deque()  # a batch is read when the GPU has the next one already
        for pixels in ahead(load, range(0, len(photos), BATCH)):
            under_way.append(replicas.outputs(BATCH, partial(run, pixels)))
            if len(under_way) > 1:
                yield under_way.popleft()
        yield from under_way

    vectors = chain.from_iterable(batch.cpu().numpy() for batch in results())
    wanted = islice(vectors, len(photos))
    for vector in tqdm(wanted, "features", len(photos), unit="photo", disable=None):
        yield np.split(vector, np.cumsum(widths)[:-1])
