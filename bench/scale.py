"""Time a photo and peak memory of the stages, on sets of hundreds to hundreds of thousands.

python bench/scale.py [COUNT ...]    # 400 4000 40000 400000

The photos are 1/f noise of 64 px in 10 classes, and the network is a small one at 32 px, so that
what grows with the number of photos shows. They are drawn into the temporary folder: 4 KB each on
most file systems. The last column says how a stage's CPU time grew from the size before.
"""

import math
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from near_duplicates import noise
from PIL import Image
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "train", "evaluate", "report")
SIDE, BLOCK, CLASSES = 64, 400, 10


def draw(folder: Path, start: int) -> None:
    """Draw `BLOCK` photos; equal arguments draw equal ones."""
    pixels = noise(BLOCK, np.random.default_rng(start), SIDE).astype(np.uint8)
    for number, photo in enumerate(pixels.transpose(0, 2, 3, 1), start):
        file = folder / f"c{number % CLASSES}" / f"{number:07}.jpg"
        Image.fromarray(photo).save(file, quality=85)


def measure(stage: str, folder: Path) -> tuple[float, float, float]:
    """Run a stage; return its wall and CPU seconds, and its peak memory in MB."""
    started = time.perf_counter()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ["MEADOW_CACHE"] = str(folder / "cache")
        os.dup2(2, 1)  # the table alone is on standard output
        os.execv(sys.executable, [sys.executable, "-m", f"meadow.{stage}"])  # noqa: S606
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"{stage} failed")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    counts = [int(count) for count in sys.argv[1:]] or [400, 4000, 40_000, 400_000]
    print("| photos | stage | s | CPU ms a photo | peak MB | CPU grows as |")
    print("|--:|:--|--:|--:|--:|:--|")
    with tempfile.TemporaryDirectory() as temporary:
        folder, drawn = Path(temporary), 0
        (folder / "models/pretrained").mkdir(parents=True)
        for name in ("data/overrides.csv", "metrics/released.csv"):
            (folder / name).parent.mkdir()
            shutil.copy(ROOT / name, folder / name)
        for number in range(CLASSES):
            (folder / f"data/raw/c{number}").mkdir(parents=True)
        yaml = YAML()
        values = yaml.load(ROOT / "params.yaml")
        values["prepare"].update(size=32)
        values["train"].update(method="probe", arch="mobilenet_v3_small", weights="none")
        yaml.dump(values, folder / "params.yaml")
        before: dict[str, tuple[int, float]] = {}
        for count in sorted(counts):
            with ProcessPoolExecutor() as pool:
                list(pool.map(partial(draw, folder / "data/raw"), range(drawn, count, BLOCK)))
            drawn = count
            for stage in STAGES:
                wall, cpu, peak = measure(stage, folder)
                growth = ""
                if stage in before:
                    fewer, less = before[stage]
                    growth = f"n^{math.log(cpu / less) / math.log(count / fewer):.2f}"
                before[stage] = count, cpu
                print(
                    f"| {count:,} | {stage} | {wall:.1f} | {cpu / count * 1000:.2f} | {peak:.0f}"
                    f" | {growth} |",
                    flush=True,
                )
            shutil.rmtree(folder / "cache")  # each size computes all its photos


if __name__ == "__main__":
    main()
