"""Time a photo and peak memory of prepare on sets of thousands and hundreds of thousands of photos.

python bench/large_sets.py [COUNT ...]    # 4000 400000

The photos are 1/f noise of 64 px, in 100 classes: of so small ones what grows with their number
shows best. They are drawn into the temporary folder: 4 KB each on most file systems.
"""

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
SIDE, BLOCK, CLASSES = 64, 1000, 100


def draw(folder: Path, start: int) -> None:
    """Draw `BLOCK` photos; equal arguments draw equal ones."""
    pixels = noise(BLOCK, np.random.default_rng(start), SIDE).astype(np.uint8)
    for number, photo in enumerate(pixels.transpose(0, 2, 3, 1), start):
        file = folder / f"c{number % CLASSES:02}" / f"{number:07}.jpg"
        Image.fromarray(photo).save(file, quality=85)


def prepare(folder: Path) -> tuple[float, float, float]:
    """Run the stage; return its wall and CPU seconds, and its peak memory in MB."""
    started = time.perf_counter()
    if (child := os.fork()) == 0:
        os.chdir(folder)
        os.environ["MEADOW_CACHE"] = str(folder / "cache")
        os.execv(sys.executable, [sys.executable, "-m", "meadow.prepare"])  # noqa: S606
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit("prepare failed")
    wall = time.perf_counter() - started
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Print a table."""
    counts = [int(count) for count in sys.argv[1:]] or [4000, 400_000]
    print("| photos | s | ms a photo | CPU ms a photo | peak MB |\n|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder, drawn = Path(temporary), 0
        (folder / "models/pretrained").mkdir(parents=True)
        (folder / "data").mkdir()
        shutil.copy(ROOT / "data/overrides.csv", folder / "data")
        for number in range(CLASSES):
            (folder / f"data/raw/c{number:02}").mkdir(parents=True)
        yaml = YAML()
        values = yaml.load(ROOT / "params.yaml")
        values["prepare"].update(size=32)
        yaml.dump(values, folder / "params.yaml")
        for count in sorted(counts):
            with ProcessPoolExecutor() as pool:
                list(pool.map(partial(draw, folder / "data/raw"), range(drawn, count, BLOCK)))
            drawn = count
            wall, cpu, peak = prepare(folder)
            per_photo = f"{wall / count * 1000:.2f} | {cpu / count * 1000:.2f}"
            print(f"| {count:,} | {wall:.1f} | {per_photo} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
