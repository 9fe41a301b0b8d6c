"""Fine-tuning by two processes of a thread against one of two, and the memory of a large set.

python bench/processes.py speed ARCH SIZE TRAIN_PHOTOS [BATCH]
python bench/processes.py memory [GB]
"""

import os
import shutil
import subprocess
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
from meadow.pipeline.manifest import Photos
from meadow.pipeline.shards import MOST, Pixels
from meadow.training import finetune
from meadow.training.data_parallel import DataParallel

ROOT = Path(__file__).parents[1]
EPOCHS = 3
SIZE = 288


def speed(arch: str, size: str, count: str, batch: str = "64") -> None:
    """Print seconds of an epoch, val photos and checkpoint included, and of the whole stage."""
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        os.environ["MEADOW_CACHE"] = str(Path(temporary, "cache"))
        Path("models/pretrained").mkdir(parents=True)
        shutil.copy(ROOT / "params.yaml", temporary)
        tuning = {"epochs": EPOCHS, "batch_size": int(batch), "frozen": 0.0}
        how = {"method": "finetune", "arch": arch, "weights": "none", "precision": "float32"}
        recipes.set_params({"prepare": {"size": int(size)}, "train": {**how, "finetune": tuning}})
        draw_demo(Path("data/raw"), round(int(count) / 0.7))
        stage("prepare")
        photos = len(Pixels(Path("data/prepared"), "train"))
        print(f"{arch}, {size} px, {photos} photos, {batch} a step")
        print("| processes x threads | s an epoch | s of the stage |\n|---|--:|--:|")
        epochs = {}
        for processes in (1, 2):
            recipes.set_params({"runtime": {"workers": 2, "processes": processes}})
            epochs[processes], whole = stage("train")
            print(
                f"| {processes} x {2 // processes} | {epochs[processes]:.2f} | {whole:.1f} |",
                flush=True,
            )
        print(f"two processes have {epochs[1] / epochs[2]:.3f} of the speed of two threads")


def stage(name: str) -> tuple[float, float]:
    """Run a stage; return the shortest time between two checkpoints, and its own, in seconds."""
    times: list[int] = []
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", f"meadow.{name}"], stdout=sys.stderr) as run:
        while run.poll() is None:
            for file in Path("cache/checkpoints").glob("*.pt"):
                written = file.stat().st_mtime_ns
                if written not in times:
                    times.append(written)
            time.sleep(0.02)
    assert run.returncode == 0
    return min(np.diff(times), default=0) / 1e9, time.perf_counter() - started


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
