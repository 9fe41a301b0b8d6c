"""How much of the bare network's rate extraction and fine-tuning reach, in one run.

Extraction counts decoding the photos and writing the cache. The bare network works on tensors that
are ready; the bare step is forward, backward and AdamW. Run in a project whose params.yaml is the
recipe to measure, after `dvc repro prepare`:

    python bench/throughput.py
"""

import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812  # its standard name

from meadow import params
from meadow.inference.onnx_session import open_session
from meadow.pipeline import manifest, parallel
from meadow.pipeline.cpu import cores
from meadow.pipeline.manifest import Photos, Prepared
from meadow.pipeline.parallel import Machines
from meadow.training import architectures, features, finetune
from meadow.training.data_parallel import DataParallel
from meadow.training.weights import Weights

ROUNDS = 5
STEPS = 4


def main() -> None:
    """Print photos per second, medians over the rounds, and shares of the first line of each."""
    p = params.load().train
    ready, weights = manifest.load(), Weights.of(p.weights, p.arch)
    for works in (extracting(p, ready, weights), tuning(p, ready, weights)):
        rates: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(ROUNDS):  # side by side, so that a slow moment of the machine meets all
            for name, work in works.items():
                started = time.perf_counter()
                count = work()
                rates[name].append(count / (time.perf_counter() - started))
        medians = {name: sorted(each)[ROUNDS // 2] for name, each in rates.items()}
        best = next(iter(medians.values()))
        for name, rate in medians.items():
            print(f"| {name} | {rate:.1f} | {rate / best:.2f} |", flush=True)


def extracting(p: params.Train, ready: Prepared, weights: Weights) -> dict[str, Callable[[], int]]:
    """Return what computes features: the bare network on all cores, one by one, and Meadow."""
    folder = Path(params.load().data.dir)
    network, digest = features.backbone(p, weights, ready)
    photos = ready.photos("train")
    pixels = [photos.pixels[i : i + 1] for i in range(len(photos.rows))]

    def bare(threads: int) -> int:
        session = open_session(network, threads=threads)
        with ThreadPoolExecutor(cores() // threads) as pool:
            list(pool.map(lambda one: session.run(features.OUTPUTS, {"pixels": one}), pixels))
        return len(pixels)

    def meadow() -> int:
        files = [(folder / row.path).read_bytes() for row in photos.rows]
        list(parallel.ordered(ready.preprocessing, files, title="decode"))
        with tempfile.TemporaryDirectory() as cache:
            os.environ["MEADOW_CACHE"] = cache
            features.frozen(network, digest, [photos], machines=Machines())
        return len(photos.rows)

    return {
        "the bare network, a photo a core": lambda: bare(1),
        "the bare network, a photo on all cores": lambda: bare(cores()),
        "Meadow, from files to cached features": meadow,
    }


def tuning(p: params.Train, ready: Prepared, weights: Weights) -> dict[str, Callable[[], int]]:
    """Return what trains all layers: the bare step, in other formats too, and Meadow's epoch."""
    batch = p.finetune.batch_size
    count = STEPS * batch
    everything = ready.photos("train")
    part = Photos(everything.rows[:count], everything.pixels[:count], everything.targets[:count])
    pixels = torch.from_numpy(part.pixels[:])
    targets = torch.from_numpy(part.targets)

    def network() -> architectures.Network:
        size, classes = ready.preprocessing.size, len(ready.classes)
        return architectures.build(p.arch, weights, classes=classes, size=size, seed=p.seed).train()

    def bare(form: torch.memory_format, kind: torch.dtype) -> Callable[[], int]:
        net = network().to(memory_format=form)
        optimizer = torch.optim.AdamW(net.parameters(), lr=p.finetune.lr)

        def work() -> int:
            torch.set_num_threads(cores())
            torch.use_deterministic_algorithms(False)
            for step in range(STEPS):
                rows = slice(step * batch, (step + 1) * batch)
                with torch.autocast("cpu", kind, enabled=kind != torch.float32):
                    loss = F.cross_entropy(net(pixels[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            return count

        return work

    own = network()
    optimizer = finetune._optimizer(own, p.finetune)

    def meadow() -> int:
        replicas = DataParallel(own, cores())
        finetune._epoch(replicas, optimizer, part, p.finetune, p.seed, 0)
        return count

    dense, last = torch.contiguous_format, torch.channels_last
    return {
        "the bare step": bare(dense, torch.float32),
        "the bare step, channels last": bare(last, torch.float32),
        "the bare step, bfloat16": bare(dense, torch.bfloat16),
        "the bare step, bfloat16 and channels last": bare(last, torch.bfloat16),
        "Meadow, photos changed at random": meadow,
    }


if __name__ == "__main__":
    main()
