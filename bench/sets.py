"""Draw the sets of docs/experiments.md that are neither lawns nor the demo.

`digits`: 600 of scikit-learn's, enlarged to 64 px. `kinds`: ten shapes, striped or dotted, in any
colour, size and turn, over clutter. Of `kinds` the first COUNT (20) are drawn, EACH (30) times:

    python bench/sets.py digits FOLDER
    python bench/sets.py kinds FOLDER [COUNT EACH]
"""

import itertools
import math
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from sklearn.datasets import load_digits

Points = list[tuple[float, float]]
DIGITS = 600


def star(corners: int, inner: float | None = None) -> Points:
    """Return a polygon of radius 1, or a star whose inner corners have the radius `inner`."""
    n = corners if inner is None else 2 * corners
    radii = [1.0 if inner is None or i % 2 == 0 else inner for i in range(n)]
    turns = [math.tau * i / n for i in range(n)]
    return [(r * math.cos(turn), r * math.sin(turn)) for r, turn in zip(radii, turns, strict=True)]


CROSS = [
    *((-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)),
    *((0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)),
]
MOON = [(math.cos(a), math.sin(a)) for a in np.linspace(0.6, math.tau - 0.6, 30)] + [
    (0.35 + 0.75 * math.cos(a), 0.75 * math.sin(a)) for a in np.linspace(math.tau - 0.8, 0.8, 20)
]
SHAPES: dict[str, Points] = {
    "triangle": star(3),
    "square": star(4),
    "pentagon": star(5),
    "octagon": star(8),
    "disc": star(40),
    "star4": star(4, 0.4),
    "star5": star(5, 0.45),
    "star8": star(8, 0.6),
    "cross": CROSS,
    "moon": MOON,
}


def draw_kind(shape: str, pattern: str, number: int) -> Image.Image:
    """Draw one picture, 200 to 319 px wide; the same arguments give the same picture."""
    chance = random.Random(f"{shape}{pattern}{number}")
    wide, tall = chance.randrange(200, 320), chance.randrange(160, 260)
    tiles = np.random.default_rng(chance.randrange(2**31)).integers(40, 215, (5, 6, 3), np.uint8)
    image = Image.fromarray(tiles).resize((wide, tall), Image.Resampling.BICUBIC)
    _clutter(image, chance)
    size, turn = chance.uniform(0.22, 0.45) * min(wide, tall), chance.random() * math.tau
    left, top = chance.uniform(size, wide - size), chance.uniform(size, tall - size)
    flat, c, s = chance.uniform(0.75, 1), math.cos(turn), math.sin(turn)
    colours = [_colour(chance), _colour(chance)]
    outline = [
        (left + size * (x * c - flat * y * s), top + size * (x * s + flat * y * c))
        for x, y in SHAPES[shape]
    ]
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    cloth = Image.new("RGB", image.size, colours[0])
    pen = ImageDraw.Draw(cloth)
    if pattern == "stripes":
        step = chance.randrange(6, 12)
        for x in range(-tall, wide + tall, step):
            # A lot of one: without it the pictures would not be those that were measured.
            slant = chance.choice([tall // 2])
            pen.line((x, 0, x + slant, tall), fill=colours[1], width=step // 2)
    else:
        step = chance.randrange(8, 14)
        for x, y in itertools.product(range(0, wide, step), range(0, tall, step)):
            pen.ellipse((x, y, x + step // 2, y + step // 2), fill=colours[1])
    image.paste(cloth, mask=mask)
    return image.filter(ImageFilter.GaussianBlur(chance.uniform(0, 1.2)))


def _clutter(image: Image.Image, chance: random.Random) -> None:
    pen = ImageDraw.Draw(image)
    for _ in range(chance.randrange(8, 25)):
        colour = _colour(chance)
        x, y = chance.random() * image.width, chance.random() * image.height
        radius = chance.randrange(3, 14)
        if chance.random() < 0.5:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            end = x + chance.randrange(-60, 60), y + chance.randrange(-60, 60)
            pen.line((x, y, *end), fill=colour, width=chance.randrange(1, 4))


def _colour(chance: random.Random) -> tuple[int, ...]:
    return tuple(chance.randrange(256) for _ in range(3))


def kinds(folder: Path, count: int, each: int) -> None:
    """Draw `each` pictures of each of the first `count` kinds."""
    for shape, pattern in itertools.islice(itertools.product(SHAPES, ("stripes", "dots")), count):
        (folder / f"{shape}-{pattern}").mkdir(parents=True)
        for i in range(each):
            image = draw_kind(shape, pattern, i)
            image.save(folder / f"{shape}-{pattern}" / f"{i:03d}.jpg", quality=85)


def digits(folder: Path) -> None:
    """Write scikit-learn's digits as pictures, a folder for each."""
    known = load_digits()
    for i in np.random.default_rng(0).permutation(len(known.target))[:DIGITS]:
        file = folder / f"d{known.target[i]}" / f"{i:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        grey = Image.fromarray((known.images[i] * 255 / 16).round().astype(np.uint8))
        grey.resize((64, 64), Image.Resampling.BICUBIC).convert("RGB").save(file)


if __name__ == "__main__":
    if sys.argv[1] == "digits":
        digits(Path(sys.argv[2]))
    else:
        numbers = [int(number) for number in sys.argv[3:]] or [20, 30]
        kinds(Path(sys.argv[2]), *numbers)
