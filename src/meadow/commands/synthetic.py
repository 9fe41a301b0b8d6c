"""The demo photo set, drawn by program: dandelions, and lawns with other flowers or none.

Same bytes on every machine with the same Pillow, as everything here is exact: directions come from
a table of rounded numbers, chance from one seeded generator a photo, blurs have whole radii, lines
are one pixel wide, polygons keep clear of rounding ties. Both classes share light, lawn and the
colours of what grows there: shapes tell them apart, colour statistics do not.
"""

import io
import math
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

CLASSES = ("dandelion", "grass")
_Colour = tuple[int, ...]  # red, green, blue
_Form = tuple[tuple[float, float], ...]

# One turn in 256 steps, rounded to 1/1024: far coarser than the last bit, where libms differ.
_SIN = tuple(round(math.sin(math.tau * step / 256) * 1024) / 1024 for step in range(256))
_COS = _SIN[64:] + _SIN[:64]

# Outlines of petals and blades as (along, across); an even number of corners for `_Pen.petal`.
_POINTED = ((0.1, 0.0), (0.8, 1.0), (1.0, 0.0), (0.8, -1.0))
_BROAD = ((0.1, 0.2), (0.6, 1.0), (0.93, 0.7), (0.93, -0.7), (0.6, -1.0), (0.1, -0.2))
_BLADE = ((0.0, 0.1), (0.3, 0.9), (0.6, 0.8), (1.0, 0.0), (0.6, -0.8), (0.3, -0.9))

_GREENS = ((86, 140, 44), (58, 104, 36), (110, 142, 52), (62, 112, 58), (98, 124, 48), (46, 92, 36))
_YELLOWS = ((250, 208, 22), (246, 190, 16), (240, 214, 60), (252, 196, 40))
_WHITES = ((244, 244, 236), (228, 230, 232), (250, 244, 226), (236, 226, 230))
_DARKS = ((110, 60, 24), (84, 50, 30), (70, 66, 26), (52, 60, 30))
_EARTHS = ((118, 88, 60), (146, 120, 90), (88, 70, 54), (128, 122, 116))
_SKIES = ((150, 186, 226), (186, 204, 220), (212, 214, 206), (120, 162, 214))

# Gain of red, green and blue, and what is added: warm, cold, dusk, haze.
_LIGHTS = ((1.1, 1.0, 0.8, 4), (0.92, 1.0, 1.1, 4), (0.68, 0.71, 0.84, 6), (0.85, 0.85, 0.85, 30))


def draw_demo(directory: Path, count: int = 400) -> None:
    """Draw `count` photos: directory/dandelion/00000.jpg ... and directory/grass/00000.jpg ...

    Half of them are of each class (one dandelion more if `count` is odd). A photo depends on its
    class and number alone, so drawing more extends the set. Files of these names are overwritten.
    """
    for photo in range(count):
        number, label = photo // 2, CLASSES[photo % 2]
        (directory / label).mkdir(parents=True, exist_ok=True)
        (directory / label / f"{number:05d}.jpg").write_bytes(draw_photo(label, number))


def draw_photo(label: str, number: int) -> bytes:
    """Draw one photo of the class `label`: a JPEG file, 160 to 320 px on the long side."""
    pen = _Pen(len(CLASSES) * number + CLASSES.index(label))
    upright = pen.random() < 0.5
    image = _backdrop(pen, upright)
    pen.take(image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR))
    _scene(pen, upright, label == CLASSES[0])
    image = pen.image.reduce(2)
    shade = Image.frombytes("L", (4, 3), bytes(165 + pen.randrange(91) for _ in range(12)))
    shade = shade.convert("RGB").resize(image.size, Image.Resampling.BICUBIC)
    image = ImageChops.multiply(image, shade)
    (*gains, lift), sun = pen.choice(_LIGHTS), pen.uniform(1.0, 1.35)
    image = image.point([int(v * gain * sun + lift) for gain in gains for v in range(256)])
    file = io.BytesIO()
    image.save(file, "JPEG", quality=84 + pen.randrange(8))
    return file.getvalue()


class _Pen(Random):
    """The photo's own random numbers, and the image that they are drawn on."""

    def take(self, image: Image.Image) -> None:
        self.image = image
        self.squash = 1.0  # height to width of what is drawn: less is seen more from the side
        self.draw = ImageDraw.Draw(image)
        self.glass = ImageDraw.Draw(image, "RGBA")  # blends where `draw` covers

    def tinted(self, colours: tuple[_Colour, ...], spread: float = 0.12) -> _Colour:
        return _tint(self.choice(colours), self.uniform(1 - spread, 1 + spread))

    def dot(self, x: float, y: float, radius: float, colour: _Colour) -> None:
        tall = radius * self.squash
        box = int(x - radius), int(y - tall), int(x + radius), int(y + tall)
        self.draw.ellipse(box, fill=colour)

    def petal(self, x: float, y: float, turn: int, form: _Form, colour: _Colour) -> None:
        """Draw a petal or blade from x, y along `turn`.

        The corners are put on odd and even rows by turns, so that no edge meets a row halfway
        between two pixels, which processors with a fused multiply-add would round differently.
        """
        c, s = _COS[turn & 255], _SIN[turn & 255]
        corners = [(x + c * u - s * v, y + (s * u + c * v) * self.squash) for u, v in form]
        rows = [(int(px), int(py) & ~1 | k & 1) for k, (px, py) in enumerate(corners)]
        self.draw.polygon(rows, fill=colour)

    def ring(self, x: float, y: float, petals: int, form: _Form, colour: _Colour) -> None:
        """Draw petals all around, no two alike."""
        start, jitter = self.randrange(256), 90 // petals
        for k in range(petals):
            turn = start + 256 * k // petals + self.randrange(-jitter, jitter + 1)
            shorter = _sized(form, self.uniform(0.82, 1), 1)
            self.petal(x, y, turn, shorter, _tint(colour, self.uniform(0.82, 1.1)))


def _sized(form: _Form, length: float, width: float) -> _Form:
    return tuple((u * length, v * width) for u, v in form)


def _tint(colour: _Colour, gain: float) -> _Colour:
    return tuple(min(int(band * gain), 255) for band in colour)


def _dandelion(pen: _Pen, x: float, y: float, size: float, colour: _Colour) -> None:
    """Draw many narrow rays in layers, without a disc."""
    for k, (reach, rays) in enumerate(((1.0, 26), (0.86, 24), (0.68, 20), (0.48, 15), (0.28, 10))):
        form = _sized(_POINTED, size * reach, size * 0.08)
        layer_y = y - size * 0.1 * k * (1 - pen.squash)
        pen.ring(x, layer_y, rays, form, _tint(colour, 0.8 + 0.07 * k))


def _seed_head(pen: _Pen, x: float, y: float, size: float, colour: _Colour) -> None:
    """Draw a dandelion's globe of tufted seeds."""
    for _ in range(24 + int(min(size, 80))):
        turn, far = pen.randrange(256), size * (1 - 0.5 * pen.random() * pen.random())
        tip = int(x + _COS[turn] * far), int(y + _SIN[turn] * far)
        pen.glass.line((int(x), int(y), *tip), fill=(*colour, 150))
        for tuft in ((turn + spread) & 255 for spread in (-28, -12, 0, 12, 28)):
            end = int(tip[0] + _COS[tuft] * size * 0.2), int(tip[1] + _SIN[tuft] * size * 0.2)
            pen.glass.line((*tip, *end), fill=(*colour, 240))
    pen.dot(x, y, size * 0.13, pen.tinted(_EARTHS))


def _daisy(pen: _Pen, x: float, y: float, size: float, colour: _Colour) -> None:
    """Draw another flower: a ring of broad petals around a disc; five make a buttercup."""
    petals = pen.choice((5, 6, 11, 13, 16, 19))
    for reach, gain in ((1.0, 0.7), (0.94, 0.96)):
        form = _sized(_BROAD, size * reach, size * 1.5 / petals)
        pen.ring(x, y, petals, form, _tint(colour, gain))
    middle = pen.tinted(_DARKS if colour[2] < 100 else _YELLOWS)  # of yellow and of white flowers
    for share, gain in ((1.0, 0.8), (0.85, 1.0)):
        pen.dot(x, y - size * 0.08 * (1 - pen.squash), size * 0.4 * share, _tint(middle, gain))


def _blades(pen: _Pen, amount: int, size: float, colour: _Colour, horizon: float | None) -> None:
    """Draw grass: lying any way from above; else upright below the horizon, larger when near."""
    wide, tall = pen.image.size
    spread, thick = pen.randrange(8, 36), pen.uniform(0.03, 0.08)
    for k in range(amount):
        turn, y, length = pen.randrange(256), tall * pen.uniform(-0.1, 1.1), size
        if horizon is not None:
            near = horizon + (1 - horizon) * k / amount
            turn = 192 + pen.randrange(-spread, spread + 1)
            y, length = tall * near * 1.15, size * (0.3 + 0.7 * near)
        length *= pen.uniform(0.5, 1.2)
        form = _sized(_BLADE if k % 3 else _POINTED, length, max(length * thick, 1.5))
        shade = _tint(colour, pen.uniform(0.65, 0.95) + 0.2 * k / amount)
        pen.petal(wide * pen.uniform(-0.1, 1.1), y, turn, form, shade)


def _backdrop(pen: _Pen, upright: bool) -> Image.Image:
    """Draw what is far away and blurred, at the photo's final size."""
    long = 160 + pen.randrange(161)
    short = long * pen.choice((100, 75, 75, 67, 67, 67, 56)) // 100
    size = (short, long) if pen.random() < 0.25 else (long, short)
    tiles = Image.new("RGB", (3 + pen.randrange(4), 2 + pen.randrange(4)))
    base = pen.tinted(_EARTHS if pen.random() < 0.15 else _GREENS, 0.2)
    sky = tiles.height // 2 if upright and pen.random() < 0.3 else 0
    for place in range(tiles.width * tiles.height):
        y, x = divmod(place, tiles.width)
        far = pen.tinted(_SKIES) if y < sky else _tint(base, pen.uniform(0.35, 1.3))
        tiles.putpixel((x, y), far)
    pen.take(tiles.resize(size, Image.Resampling.BICUBIC))
    _blades(pen, 60 + pen.randrange(120), short * 0.3, base, 0.5 if upright else None)
    blur = ImageFilter.BoxBlur(3 + pen.randrange(5))
    return pen.image.filter(blur).filter(blur)


def _scene(pen: _Pen, upright: bool, dandelion: bool) -> None:
    """Draw the lawn and what grows on it, seen from the side or from above."""
    wide, tall = pen.image.size
    short, grass = min(wide, tall), pen.tinted(_GREENS, 0.2)
    horizon = pen.uniform(0.0, 0.9) if upright else None
    _blades(pen, pen.randrange(40, 500), short * pen.uniform(0.12, 0.5), grass, horizon)
    amount = pen.choice((1, 1, 1, 2, 2, 3, 4, 6, *((1, 1) if dandelion else (0, 0))))
    size = short * pen.uniform(0.6, 1.0) * (0.46, 0.36, 0.3, 0.26)[amount // 2]
    palettes = [pen.choice((_YELLOWS, _WHITES)) for _ in range(2)]
    for place in range(amount):
        palette = palettes[place > 0 and pen.random() < 0.4]
        x = pen.uniform(size, wide - size)
        y = size + (tall - 2 * size) * (place + pen.random()) / amount
        if upright:
            stem = pen.tinted((grass, (150, 160, 90), (150, 116, 84)))
            pen.petal(x, y, pen.randrange(52, 77), _sized(_BLADE, tall, size * 0.06), stem)
        pen.squash = pen.uniform(0.4, 0.8) if upright else pen.uniform(0.75, 1.0)
        flower = _daisy if not dandelion else _dandelion if palette is _YELLOWS else _seed_head
        flower(pen, x, y, size, pen.tinted(palette))
        pen.squash = 1.0
    _blades(pen, pen.randrange(25), short * pen.uniform(0.1, 0.4), grass, horizon and 0.8)
