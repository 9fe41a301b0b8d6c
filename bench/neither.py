"""How well the distance tells photos of the set from pictures of other things.

The test photos against 40 drawn pictures of each kind: noise, text, blank, gradients, street and
screen. Run in a project in which `dvc repro` has run:

    python bench/neither.py PICTURES.png
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from meadow import params
from meadow.evaluation import metrics
from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline import manifest
from meadow.reporting.contact_sheet import contact_sheet

EACH = 40
SIDE = 240
Random = np.random.Generator


def noise(r: Random) -> Image.Image:
    """Draw noise of a random grain."""
    side = int(r.choice([8, 30, 120, SIDE]))
    pixels = r.integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((SIDE, SIDE))


def blank(r: Random) -> Image.Image:
    """Draw one colour."""
    return Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in r.integers(0, 256, 3)))


def gradient(r: Random) -> Image.Image:
    """Draw a run from one colour to another, as a lens cap or a wall gives."""
    one, other = r.integers(0, 256, (2, 3))
    t = np.linspace(0, 1, SIDE)[:, None, None]
    pixels = (one + (other - one) * t).repeat(SIDE, 1).astype(np.uint8)
    return Image.fromarray(pixels).rotate(int(r.choice([0, 90, 180])))


def text(r: Random) -> Image.Image:
    """Draw a page of words."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(int(r.integers(9, 20)))
    for y in range(5, SIDE, 22):
        words = ["".join(map(chr, r.integers(97, 123, r.integers(2, 9)))) for _ in range(8)]
        draw.text((6, y), " ".join(words), "black", font)
    return image


def street(r: Random) -> Image.Image:
    """Draw houses with windows under a sky, and a car."""
    image = Image.new("RGB", (SIDE, SIDE), (150, 180, int(r.integers(200, 256))))
    draw = ImageDraw.Draw(image)
    x = 0
    while x < SIDE:
        wide, high = int(r.integers(40, 80)), int(r.integers(70, 170))
        wall = tuple(int(c) for c in r.integers(90, 200, 3))
        draw.rectangle((x, SIDE - 40 - high, x + wide, SIDE - 40), wall)
        for wx in range(x + 8, x + wide - 12, 18):
            for wy in range(SIDE - 30 - high, SIDE - 60, 24):
                draw.rectangle((wx, wy, wx + 9, wy + 13), (60, 70, 90))
        x += wide
    draw.rectangle((0, SIDE - 40, SIDE, SIDE), (90, 90, 95))
    left = int(r.integers(10, 150))
    paint = tuple(int(c) for c in r.integers(0, 256, 3))
    draw.rounded_rectangle((left, SIDE - 50, left + 70, SIDE - 25), 8, paint)
    draw.rounded_rectangle((left + 14, SIDE - 66, left + 54, SIDE - 45), 6, paint)
    for wheel in (left + 15, left + 55):
        draw.ellipse((wheel - 8, SIDE - 33, wheel + 8, SIDE - 17), (20, 20, 20))
    return image.filter(ImageFilter.GaussianBlur(float(r.uniform(0, 1.2))))


def screen(r: Random) -> Image.Image:
    """Draw a window with a chart, as a screenshot shows."""
    image = Image.new("RGB", (SIDE, SIDE), (245, 246, 250))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, SIDE, 26), (50, 60, 90))
    for i in range(9):
        high = int(r.integers(10, 150))
        bar = tuple(int(c) for c in r.integers(40, 220, 3))
        draw.rectangle((20 + 23 * i, SIDE - 20 - high, 36 + 23 * i, SIDE - 20), bar)
    return image


KINDS: list[Callable[[Random], Image.Image]] = [noise, blank, gradient, text, street, screen]


def main() -> None:
    """Print AUROC and the share that is called "in" for each kind, and show the pictures."""
    model, ready = Classifier.load(), manifest.load()
    folder = Path(params.load().data.dir)
    own = [model.predict((folder / row.path).read_bytes()) for row in ready.split("test")]
    print(f"test photos: {np.mean([each.in_distribution for each in own]):.3f} are in")
    tiles, all_distances = [], []
    for kind in KINDS:
        random = np.random.default_rng(0)
        images = [kind(random) for _ in range(EACH)]
        size = model.preprocessing.size
        pixels = [np.asarray(i.resize((size, size), Image.Resampling.BILINEAR)) for i in images]
        distances = np.concatenate([model.classify(each[None])[1] for each in pixels])
        all_distances.append(distances)
        share = (distances <= model.about["distance_threshold"]).mean()
        print(f"{kind.__name__}: AUROC {against(own, distances):.3f}, {share:.3f} are called in")
        tiles += [(ImageOps.contain(image, (152, 152)), kind.__name__) for image in images[:4]]
    print(f"all: AUROC {against(own, np.concatenate(all_distances)):.3f}")
    contact_sheet(tiles, "Pictures of other things").save(sys.argv[1])


def against(own: list[Answer], strange: NDArray[np.float64]) -> float:
    """Return the AUROC of the distance: how often a strange picture is the further one."""
    near = np.array([each.distance for each in own])
    both = np.concatenate([near, strange])
    return metrics.auroc(metrics.roc(both, np.arange(len(both)) >= len(near)))


if __name__ == "__main__":
    main()
