"""Photos a second of features and of fine-tuning on the device that is there, and their share.

The bare step is the network's forward pass, or forward, backward and AdamW, on tensors that lie on
the device; the roof is what a large matrix product reaches there, by the operations that the
network needs. Meadow's own reads pixels from a file and, for features, writes the cache. Weights
are random: they do not change the time.

    python bench/device.py [--device cuda] [--autocast bfloat16] [--photos 128] [NETWORK ...]
"""

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its standard name
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from meadow import params
from meadow.inference.onnx_session import open_session
from meadow.pipeline.cpu import cores
from meadow.pipeline.manifest import Photos, Row
from meadow.pipeline.parallel import HERE
from meadow.training import (
    architectures,
    feature_table,
    features,
    finetune,
    onnx_export,
    onnx_graph,
    starting,
    torch_features,
)  # fmt: skip
from meadow.training.data_parallel import DataParallel
from meadow.training.device import Device
from meadow.training.weights import Weights

SIZES = {"timm/tf_efficientnet_lite2": 288, "resnet50": 224, "vit_b_16": 224}
ROUNDS = 3
Work = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Given:
    """What all measurements of a network need."""

    arch: str
    device: Device
    photos: Photos
    batch: int

    @property
    def size(self) -> int:
        """Side of the photos, pixels."""
        return int(self.photos.pixels.shape[1])

    def network(self) -> starting.Probed:
        """Return what finetune trains, all of it, with a head of ten classes, on the device."""
        none = Weights("none", "none")
        network = architectures.build(self.arch, none, classes=10, size=self.size, seed=0)
        backbone = architectures.Features(network).eval()
        with torch.no_grad():
            width = backbone(torch.zeros(1, self.size, self.size, 3))[0].shape[1]
        probed = starting.Probed(backbone, np.ones((width, 10)), np.zeros(10))
        return probed.to(self.device.kind).to(memory_format=self.device.memory_format)

    def on_device(self) -> torch.Tensor:
        """Return the pixels of a batch."""
        pixels = np.array(self.photos.pixels[: self.batch])
        return self.device.sent(torch.from_numpy(pixels))


def main() -> None:
    """Print a line of a table for each network and work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="*", help=f"else {', '.join(SIZES)}")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--autocast", default="auto")
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--work", choices=WORKS)
    parser.add_argument("--cpu-time", action="store_true", help="of one core, under `taskset -c 0`")
    chosen = parser.parse_args()
    asked = {"device": chosen.device, "autocast": chosen.autocast}
    device = Device.of(params.load().train.model_copy(update=asked))
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    roof = peak(device, clock)
    print(f"{device.about or 'CPU, float32'}, {cores()} cores, roof {roof / 1e12:.3f} TFLOP/s\n")
    print("| network | work | bare/s | Meadow/s | share of the bare | of the roof |")
    print("|---|---|--:|--:|--:|--:|", flush=True)
    for arch in chosen.networks or SIZES:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["MEADOW_CACHE"] = folder
            photos = drawn(Path(folder, "pixels.npy"), chosen.photos, SIZES.get(arch, 224))
            given = Given(arch, device, photos, chosen.batch)
            for name in [chosen.work] if chosen.work else WORKS:
                flops, bare, own = WORKS[name](given)
                slow, fast = rates(bare, own, chosen.photos, clock)
                print(
                    f"| {arch} | {name} | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} |"
                    f" {fast * flops / roof:.2f} |",
                    flush=True,
                )


def rates(bare: Work, own: Work, photos: int, clock: Clock) -> tuple[float, float]:
    """Return the medians of photos a second; in turn, so that a slow moment meets both."""
    seconds: dict[Work, list[float]] = {bare: [], own: []}
    for count in range(ROUNDS + 1):
        for work, each in seconds.items():
            started = clock()
            work()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if count:  # the first one warms up
                each.append(clock() - started)
    medians = [photos / sorted(each)[ROUNDS // 2] for each in seconds.values()]
    return medians[0], medians[1]


def peak(device: Device, clock: Clock) -> float:
    """Return the operations a second of the best of some matrix products."""
    side = 8192 if device.gpu else 2048
    torch.set_num_threads(cores())
    some = torch.randn(side, side, device=device.kind, dtype=device.dtype)
    best = float("inf")
    for _ in range(10):
        started = clock()
        product = some @ some
        float(product[0, 0])  # waits for it
        best = min(best, clock() - started)
    return 2 * side**3 / best


def drawn(file: Path, count: int, size: int) -> Photos:
    """Write photos of noise, as data/prepared has its pixels."""
    rng = np.random.default_rng(0)
    pixels = np.lib.format.open_memmap(file, "w+", np.uint8, (count, size, size, 3))
    for place in pixels:
        place[:] = rng.integers(0, 256, place.shape, np.uint8)
    rows = [Row(str(i), "a", "train", str(i), "", str(i), 1, 1, 1) for i in range(count)]
    return Photos(rows, np.load(file, mmap_mode="r"), np.arange(count) % 10)


def operations(work: Work, photos: int) -> float:
    """Return the floating-point operations for one photo."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops()) / photos


def freely(work: Work) -> Work:
    """Return the work with PyTorch's own threads and whatever operations are the fastest."""

    def bare() -> None:
        torch.set_num_threads(cores())
        torch.use_deterministic_algorithms(False)
        work()

    return bare


def written(given: Given, network: Path, gpu: Any) -> Work:
    """Return what computes features into a new table."""

    def own() -> None:
        torch.set_num_threads(1)
        with feature_table.opened(Path(tempfile.mkdtemp(), "table")) as table:
            features._compute(table, network, features.photos_of([given.photos]), HERE, gpu)

    return own


def by_onnx_runtime(given: Given) -> tuple[float, Work, Work]:
    """Return operations a photo, photos from memory one a core, and Meadow's, on the CPU."""
    network = given.network().features.cpu()
    file = Path(os.environ["MEADOW_CACHE"], "network.onnx")
    exported = onnx_export.exported(network, size=given.size, outputs=features.OUTPUTS)
    onnx_graph.save(exported, file)
    session = open_session(file)
    pixels = [np.array(given.photos.pixels[i : i + 1]) for i in range(len(given.photos.rows))]

    def bare() -> None:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(lambda one: session.run(features.OUTPUTS, {"pixels": one}), pixels))

    flops = operations(lambda: network(torch.from_numpy(pixels[0])), 1)
    return flops, bare, written(given, file, None)


@torch.no_grad()
def by_pytorch(given: Given) -> tuple[float, Work, Work]:
    """Return operations a photo, batches that lie on the device, and Meadow's."""
    network, pixels = given.network().features, given.on_device()
    torch_features.BATCH = max(given.batch, len(given.photos.rows) // 4)

    def forward() -> None:
        with torch.no_grad(), given.device.autocast():
            network(pixels)

    def bare() -> None:
        for _ in range(len(given.photos.rows) // given.batch):
            forward()

    class Gpu:
        def outputs(self, photos: Any) -> Any:
            return torch_features.outputs(network, photos, given.device)

    flops = operations(forward, given.batch)
    return flops, freely(bare), written(given, Path("none"), Gpu())


def by_epochs(given: Given) -> tuple[float, Work, Work]:
    """Return operations a photo, steps on a batch that lies on the device, and Meadow's epoch."""
    network, pixels = given.network(), given.on_device()
    p = params.load().train.finetune.model_copy(update={"batch_size": given.batch})
    optimizer = finetune._optimizer(network, p)
    targets = given.device.sent(torch.from_numpy(given.photos.targets[: given.batch]))

    def forward() -> Tensor:
        with given.device.autocast():
            return F.cross_entropy(network(pixels)[0].float(), targets)

    def step() -> None:
        loss = forward()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def bare() -> None:
        for _ in range(len(given.photos.rows) // given.batch):
            step()

    flops = 3 * operations(forward, given.batch)  # it counts no backward pass by groups rightly
    trained = copy.deepcopy(network)
    own_optimizer = finetune._optimizer(trained, p)
    replicas = DataParallel(trained, cores(), given.device)

    def own() -> None:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True, warn_only=given.device.gpu)
        finetune._epoch(replicas, own_optimizer, given.photos, p, 0, 0)

    return flops, freely(bare), own


WORKS = {
    "features, ONNX Runtime": by_onnx_runtime,
    "features, PyTorch": by_pytorch,
    "fine-tuning": by_epochs,
}

if __name__ == "__main__":
    main()
