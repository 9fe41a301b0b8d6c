"""Fine-tuning by two processes of a thread against one of two, and the memory of a large set.

python bench/processes.py speed ARCH SIZE TRAIN_PHOTOS [BATCH]
python bench/processes.py memory [GB]
"""

import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from meadow import params
from meadow.commands.synthetic import draw_demo
from meadow.experiments import recipes
from meadow.pipeline import manifest
from meadow.pipeline.manifest import Photos
from meadow.pipeline.shards import MOST, Pixels
from meadow.prepare import prepare
from meadow.training import finetune, starting
from meadow.training import processes as parallel
from meadow.training.data_parallel import DataParallel
from meadow.training.device import CPU
from meadow.training.weights import Weights

ROOT = Path(__file__).parents[1]
EPOCHS = 4
SIZE = 288


def speed(arch: str, size: str, count: str, batch: str = "64") -> None:
    """Print the seconds of an epoch, val photos and checkpoint included."""
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        os.environ["MEADOW_CACHE"] = str(Path(temporary, "cache"))
        shutil.copy(ROOT / "params.yaml", temporary)
        tuning = {"epochs": EPOCHS, "batch_size": int(batch), "frozen": 0.0}
        how = {"method": "finetune", "arch": arch, "weights": "none", "precision": "float32"}
        recipes.set_params({"prepare": {"size": int(size)}, "train": {**how, "finetune": tuning}})
        draw_demo(Path("data/raw"), round(int(count) / 0.7))
        prepare()
        chosen, ready, none = params.load(), manifest.load(), Weights("none", "none")
        p = chosen.train
        checkpoint = finetune.checkpoint(p, none, ready)
        _, network = starting.network(p, ready, none, None)
        train, val = ready.photos("train"), ready.photos("val")
        print(f"{arch}, {size} px, {len(train.rows)} + {len(val.rows)} photos, {batch} a step")

        threads: list[float] = []
        finetune.finetune(
            network, train, val, p.finetune, p.seed,
            checkpoint=checkpoint, threads=2, log=lambda _: threads.append(time.time()),
        )  # fmt: skip
        checkpoint.unlink()
        processes: list[float] = []

        def note(_: object) -> None:  # a moment after the checkpoint was written
            processes.append(checkpoint.stat().st_mtime)

        runtime = chosen.runtime.model_copy(update={"workers": 2, "processes": 2})
        parallel.train(p, None, checkpoint, CPU, runtime, note)
        one, two = (np.diff(times) for times in (threads, processes))
        print(
            f"one process of two threads: {one.round(2)} s an epoch; two of one: {two.round(2)} s"
        )
        print(f"two processes have {one.min() / two.min():.3f} of the speed", flush=True)


class Colours(nn.Module):
    """A network that takes next to no time and memory."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Map pixels to logits."""
        return (self.last(pixels[:, ::32, ::32].float().mean((1, 2)) / 255),)


def memory(gigabytes: str = "4") -> None:
    """Print how much memory of its own a process has at most in an epoch over drawn shards."""
    each = MOST // (SIZE * SIZE * 3)
    shards = round(float(gigabytes) * 1e9 / MOST)
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(shards):
            header = {"descr": "|u1", "fortran_order": False, "shape": (each, SIZE, SIZE, 3)}
            with Path(temporary, f"train-{number:05}.npy").open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                file.truncate(file.tell() + each * SIZE * SIZE * 3)  # zeros that take no disk
        photos = Photos([], Pixels(Path(temporary), "train"), np.arange(each * shards) % 2)
        network = Colours()
        p = params.load().train.finetune.model_copy(update={"batch_size": 64})
        replicas, optimizer = DataParallel(network, 2), finetune._optimizer(network, p)
        before, peak, done = own_memory(), [0], threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                peak.append(own_memory())

        thread = threading.Thread(target=watch)
        thread.start()
        started = time.perf_counter()
        finetune._epoch(replicas, optimizer, photos, p, 0, 0)
        seconds = time.perf_counter() - started
        done.set()
        thread.join()
        size = each * shards * SIZE * SIZE * 3
        print(
            f"{each * shards:,} photos, {size / 1e9:.2f} GB, in {seconds:.1f} s:"
            f" {(max(peak) - before) / 1e9:.2f} GB of memory"
        )


def own_memory() -> int:
    """Return the bytes of this process that are neither files nor shared."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1] == "speed":
        speed(*sys.argv[2:])
    else:
        memory(*sys.argv[2:])
