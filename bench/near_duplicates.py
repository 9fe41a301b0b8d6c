"""Near-duplicates: what is found of changed copies, and the time and memory of large sets.

python bench/near_duplicates.py PHOTOS [COUNT ...]

Each photo of the folder is changed 30 ways, and lies among COUNT drawn fingerprints (1/f noise).
"""

import io
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from meadow.curation.near_duplicates import (
    COLOUR_SIDE,
    SIDE,
    duplicate_groups,
    fingerprint,
    near_duplicates,
)

COPIES, BLOCK = 30, 1000


def changed(image: Image.Image, rng: np.random.Generator) -> Iterator[Image.Image]:
    """Resize, encode and crop by up to a tenth, at random; most copies are changed in two ways."""
    for i in range(COPIES):
        copy = image
        if i % 3:
            width, height = rng.uniform(0.9, 1, 2)
            left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
            share = np.array([left, top, left + width, top + height])
            copy = copy.crop(tuple(np.rint(share * (image.size * 2)).astype(int).tolist()))
        longest = (copy.width // 2, copy.width * 2, 48, copy.width)[i % 4]
        copy = copy.resize((longest, max(8, round(longest * copy.height / copy.width))))
        if i % 2:
            file = io.BytesIO()
            copy.save(file, "JPEG", quality=30)
            copy = Image.open(file).convert("RGB")
        yield copy


def noise(n: int, rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return pictures of 1/f noise in the colours of photos, (n, 3, side, side), 0 to 255."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    shape = n, 3, *frequency.shape
    waves = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    picture = np.fft.irfft2(waves * frequency ** -rng.uniform(0.9, 1.6, (n, 1, 1, 1)))
    picture /= picture.std(axis=(2, 3), keepdims=True)
    picture = picture[:, :1] + 0.2 * picture
    light = rng.normal(110, 30, (n, 1, 1, 1)) + rng.normal(0, 18, (n, 3, 1, 1))
    pixels: NDArray[np.float64] = light + rng.uniform(20, 60, (n, 1, 1, 1)) * picture
    return pixels.clip(0, 255)


def draw(prints: NDArray[np.uint8]) -> None:
    """Fill rows, (n, 1072), with fingerprints of such noise."""
    for start in range(0, len(prints), BLOCK):
        rows = prints[start : start + BLOCK]
        rgb = noise(len(rows), np.random.default_rng(start), SIDE)
        side = SIDE // COLOUR_SIDE
        colour = rgb.reshape(-1, 3, COLOUR_SIDE, side, COLOUR_SIDE, side).mean(axis=(3, 5))
        rows[:, : SIDE**2] = rgb.mean(axis=1).reshape(len(rows), -1)
        rows[:, SIDE**2 :] = colour.transpose(0, 2, 3, 1).reshape(len(rows), -1)


def main() -> None:
    """Print a table."""
    files = sorted(file for file in Path(sys.argv[1]).rglob("*.jpg"))
    rng, rows = np.random.default_rng(0), []
    for file in files:
        image = Image.open(file).convert("RGB")
        rows += [fingerprint(image), *map(fingerprint, changed(image, rng))]
    copies = np.stack(rows)
    print(
        "| fingerprints | copies found | pairs | s | CPU s | peak MB |\n|--:|--:|--:|--:|--:|--:|"
    )
    for count in [0, *map(int, sys.argv[2:])]:
        if child := os.fork():
            os.waitpid(child, 0)
            continue
        prints = np.empty((len(copies) + count, copies.shape[1]), np.uint8)
        prints[: len(copies)] = copies
        draw(prints[len(copies) :])
        wall, cpu = time.perf_counter(), time.process_time()
        pairs = near_duplicates(prints)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        groups = np.array(duplicate_groups(len(prints), pairs))[: len(copies)]
        groups = groups.reshape(len(files), -1)
        own = int((groups[:, 1:] == groups[:, :1]).sum())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"| {len(prints):,} |"
            f" {own:,} of {len(files) * COPIES:,} | {len(pairs):,} | {wall:.1f} | {cpu:.1f} |"
            f" {peak:.0f} |",
            flush=True,
        )
        os._exit(0)


if __name__ == "__main__":
    main()
