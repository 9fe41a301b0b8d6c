"""The demo photo set, drawn by program: dandelions, and lawns with everything else on them.

Same bytes on every machine with the same Pillow, so everything here is exact: directions come from
a table of rounded numbers, chance from one `random.Random` a photo, blurs have whole radii, lines
are one pixel wide, and `_Pen.shape` keeps polygons clear of rounding ties. A scene is drawn at
twice its size and averaged down, which smooths the edges.

Both classes share light, lawn, clutter and the colours of what grows there; only shapes tell them
apart, so colour statistics do not.
"""

import io
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

CLASSES = ("dandelion", "grass")

_Colour = tuple[int, int, int]
_Palette = tuple[_Colour, ...]
_Form = tuple[tuple[float, float], ...]
_Spot = tuple[float, float, float, float, float, float]  # middle x, y; the two axes of a disc

# One turn in 256 steps, rounded to 1/1024: far coarser than the last bit, where libms differ.
_SIN = tuple(round(math.sin(math.tau * step / 256) * 1024) / 1024 for step in range(256))
_COS = _SIN[64:] + _SIN[:64]

# Outlines of petals and leaves as (along, across); an even number of corners for `_Pen.shape`.
_RAY: _Form = ((0.1, 0.0), (0.8, 1.0), (1.0, 0.0), (0.8, -1.0))
_BROAD: _Form = ((0.1, 0.2), (0.6, 1.0), (0.93, 0.7), (0.93, -0.7), (0.6, -1.0), (0.1, -0.2))
_LEAF: _Form = ((0.0, 0.1), (0.3, 0.9), (0.6, 0.8), (1.0, 0.0), (0.6, -0.8), (0.3, -0.9))
_HALF_TOOTHED: _Form = ((0.0, 0.15), (0.3, 0.2), (0.2, 0.8), (0.5, 0.3), (0.4, 1.0), (0.7, 0.4))
_TOOTHED: _Form = (
    *_HALF_TOOTHED,
    *((0.62, 1.0), (1.0, 0.0), (0.62, -1.0)),
    *((along, -across) for along, across in reversed(_HALF_TOOTHED[1:])),
)

_GREENS: _Palette = (
    *((86, 140, 44), (58, 104, 36), (110, 142, 52), (62, 112, 58), (98, 124, 48), (46, 92, 36)),
)
_YELLOWS: _Palette = ((250, 208, 22), (246, 190, 16), (240, 214, 60), (252, 196, 40))
_WHITES: _Palette = ((244, 244, 236), (228, 230, 232), (250, 244, 226), (236, 226, 230))
_BRIGHTS: _Palette = ((150, 84, 190), (204, 44, 40), (212, 120, 176), (92, 96, 204))
_EARTHS: _Palette = ((118, 88, 60), (146, 120, 90), (88, 70, 54), (128, 122, 116))
_SKIES: _Palette = ((150, 186, 226), (186, 204, 220), (212, 214, 206), (120, 162, 214))
_AUTUMN: _Palette = ((222, 180, 40), (206, 150, 36), (188, 116, 40), (232, 204, 84))

# Gain of red, green and blue, and what is added: noon, warm, cold, dusk, haze, neutral.
_LIGHTS = (
    *((1.1, 1.1, 1.05, 0), (1.12, 1.0, 0.8, 4), (0.92, 0.99, 1.12, 4), (0.68, 0.71, 0.84, 6)),
    *((0.85, 0.85, 0.85, 30), (1.0, 1.0, 1.0, 0)),
)


def draw_demo(
    directory: Path,
    count: int = 400,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Draw `count` photos: directory/dandelion/00000.jpg ... and directory/grass/00000.jpg ...

    Half of them are of each class (one dandelion more if `count` is odd). A photo depends on its
    class and number alone, never on `count`, and has the same bytes on every machine with the same
    Pillow: drawing more extends the set.

    Args:
        directory: where the two folders go; made if missing, files in it are overwritten.
        count: photos in all.
        progress: wraps the photos to draw, for instance `tqdm`.

    """
    for label in CLASSES:
        (directory / label).mkdir(parents=True, exist_ok=True)
    for photo in progress(range(count)):
        number, label = photo // 2, CLASSES[photo % 2]
        (directory / label / f"{number:05d}.jpg").write_bytes(draw_photo(label, number))


def draw_photo(label: str, number: int) -> bytes:
    """Draw one photo of the class `label`: a JPEG file, 160 to 320 px on the long side."""
    rng = Random(len(CLASSES) * number + CLASSES.index(label))
    upright = rng.random() < 0.5
    image = _backdrop(rng, upright)
    pen = _Pen(image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR), rng)
    _scene(pen, upright, label == CLASSES[0])
    image = _exposed(pen.image.reduce(2), rng)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=84 + rng.randrange(8))
    return file.getvalue()


class _Pen:
    """Draws on one image with the photo's own random numbers."""

    def __init__(self, image: Image.Image, rng: Random) -> None:
        self.image = image
        self.rng = rng
        self.draw = ImageDraw.Draw(image)
        self.glass = ImageDraw.Draw(image, "RGBA")  # blends where `draw` covers

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.rng.random()

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def pick(self, colours: _Palette, spread: float = 0.12) -> _Colour:
        colour = colours[self.rng.randrange(len(colours))]
        return _tint(colour, self.between(1 - spread, 1 + spread))

    def shape(self, corners: list[tuple[float, float]], colour: _Colour) -> None:
        """Fill a polygon with an even number of corners.

        The corners are put on odd and even rows by turns. So every edge spans an odd number of rows
        and meets none of them halfway between two pixels, the one case that Pillow's polygons
        decide differently on processors that fuse a multiplication with an addition.
        """
        rows = [(int(x), int(y) & ~1 | k & 1) for k, (x, y) in enumerate(corners)]
        self.draw.polygon(rows, fill=colour)

    def dot(self, x: float, y: float, radius: float, colour: _Colour, squash: float = 1.0) -> None:
        tall = radius * squash
        box = (int(x - radius), int(y - tall), int(x + radius), int(y + tall))
        self.draw.ellipse(box, fill=colour)

    def petal(
        self, spot: _Spot, turn: int, length: float, width: float, colour: _Colour, form: _Form
    ) -> None:
        """Draw a petal or leaf from the middle of `spot` along `turn`, `width` to each side."""
        x, y, ax, ay, bx, by = spot
        c, s = _COS[turn & 255], _SIN[turn & 255]
        ux, uy = (c * ax + s * bx) * length, (c * ay + s * by) * length
        vx, vy = (c * bx - s * ax) * width, (c * by - s * ay) * width
        self.shape([(x + ux * u + vx * v, y + uy * u + vy * v) for u, v in form], colour)

    def ring(
        self,
        spot: _Spot,
        petals: int,
        length: float,
        width: float,
        colour: _Colour,
        form: _Form,
        wild: float = 0.12,
    ) -> None:
        """Draw petals all around, no two alike: `wild` is how much they differ."""
        start = self.rng.randrange(256)
        jitter = int(256 / petals * wild * 2)
        for k in range(petals):
            turn = start + 256 * k // petals + self.rng.randrange(-jitter, jitter + 1)
            shade = _tint(colour, self.between(1 - wild, 1 + wild * 0.6))
            self.petal(spot, turn, length * self.between(1 - wild, 1), width, shade, form)


def _tint(colour: _Colour, gain: float) -> _Colour:
    red, green, blue = colour
    return min(int(red * gain), 255), min(int(green * gain), 255), min(int(blue * gain), 255)


def _spot(x: float, y: float, squash: float, lean: int) -> _Spot:
    c, s = _COS[lean & 255], _SIN[lean & 255]
    return x, y, c, s, -s * squash, c * squash


def _raised(spot: _Spot, height: float) -> _Spot:
    """Move a spot up along its short axis, to what lies higher on a tilted flower."""
    x, y, ax, ay, bx, by = spot
    lift = height * (1 - (bx * bx + by * by))
    return x + ay * lift, y - ax * lift, ax, ay, bx, by


# --- What grows: the dandelion in its three ages ---


def _dandelion(pen: _Pen, spot: _Spot, size: float) -> None:
    colour = pen.pick(_YELLOWS)
    deep = (colour[0], int(colour[1] * 0.84), colour[2] // 2)
    dense = 1 if size > 24 else 0.6  # small ones would only smear
    for k, reach in enumerate((1.0, 0.86, 0.68, 0.48, 0.28)):
        petals = int((26, 24, 20, 15, 10)[k] * dense)
        shade = _tint(colour if k else deep, 0.84 + 0.06 * k)
        layer = _raised(spot, size * 0.1 * k)
        pen.ring(layer, petals, size * reach, size * 0.075 / dense, shade, _RAY, 0.18)


def _clock(pen: _Pen, spot: _Spot, size: float) -> None:
    x, y = spot[:2]
    white = pen.pick(_WHITES, 0.05)
    blown = pen.rng.randrange(256), pen.rng.randrange(30, 90) if pen.chance(0.2) else 0
    haze = size * 0.8
    box = (int(x - haze), int(y - haze), int(x + haze), int(y + haze))
    pen.glass.ellipse(box, fill=(*white, 0 if blown[1] else 30))
    for _ in range(24 + int(min(size, 80))):
        turn = pen.rng.randrange(256)
        if (turn - blown[0]) % 256 < blown[1]:
            continue
        far = size * (0.5 + 0.5 * (1 - pen.between(0, 1) * pen.between(0, 1)))
        c, s = _COS[turn], _SIN[turn]
        tip_x, tip_y = int(x + c * far), int(y + s * far)
        pen.glass.line((int(x), int(y), tip_x, tip_y), fill=(*white, 150))
        for spread in (-28, -12, 0, 12, 28):
            tuft, long = (turn + spread) & 255, size * 0.2
            end = int(tip_x + _COS[tuft] * long), int(tip_y + _SIN[tuft] * long)
            pen.glass.line((tip_x, tip_y, *end), fill=(*white, 240))
    pen.dot(x, y, size * 0.13, pen.pick(_EARTHS))
    pen.dot(x, y - size * 0.03, size * 0.07, (178, 164, 120))


def _bud(pen: _Pen, spot: _Spot, size: float) -> None:
    x, y = spot[:2]
    size *= 0.7
    green = pen.pick(((110, 140, 70), (92, 124, 60), (128, 146, 84)))
    flat = _spot(x, y + size * 0.5, 1.0, 0)
    if pen.chance(0.7):
        for turn in range(174, 212, 5):
            pen.petal(flat, turn, size * 1.5, size * 0.12, pen.pick(_YELLOWS), _RAY)
    pen.dot(x, y + size * 0.2, size * 0.5, _tint(green, 0.8), 1.2)
    for turn in (168, 216, 176, 208, 184, 200, 192):
        pen.petal(flat, turn, size * 1.2, size * 0.17, _tint(green, pen.between(0.8, 1.2)), _LEAF)
    for turn in (10, 118, 40, 88):
        pen.petal(flat, turn, size * 0.7, size * 0.12, _tint(green, 0.9), _LEAF)


# --- What else grows ---


def _disc(pen: _Pen, spot: _Spot, radius: float, colour: _Colour) -> None:
    x, y, _, _, bx, by = spot
    squash = max(abs(bx), abs(by), 0.4)
    pen.dot(x, y, radius, _tint(colour, 0.8), squash)
    pen.dot(x, y - radius * 0.1, radius * 0.85, colour, squash)
    for _ in range(int(min(radius, 24))):
        turn, far = pen.rng.randrange(256), radius * pen.between(0.2, 0.8)
        speck = x + _COS[turn] * far, y + _SIN[turn] * far * squash
        pen.dot(*speck, radius * 0.1, _tint(colour, pen.between(0.7, 1.3)))


def _daisy(colours: _Palette, pen: _Pen, spot: _Spot, size: float) -> None:
    colour, petals = pen.pick(colours, 0.06), pen.rng.randrange(11, 20)
    for reach, gain in ((1.0, 0.64), (0.94, 0.92)):
        shade = _tint(colour, gain if colours is _WHITES else gain + 0.08)
        pen.ring(spot, petals, size * reach, size * 1.5 / petals, shade, _BROAD, 0.16)
    middle = pen.pick(((110, 60, 24), (84, 50, 30))) if colours is _YELLOWS else (236, 186, 30)
    _disc(pen, _raised(spot, size * 0.08), size * pen.between(0.34, 0.44), middle)


def _buttercup(colours: _Palette, pen: _Pen, spot: _Spot, size: float) -> None:
    colour, petals = pen.pick(colours), pen.rng.randrange(5, 7)
    pen.ring(spot, petals, size, size * 1.6 / petals, _tint(colour, 0.86), _BROAD, 0.06)
    pen.ring(spot, petals, size * 0.7, size * 0.8 / petals, _tint(colour, 1.12), _BROAD, 0.06)
    _disc(pen, _raised(spot, size * 0.1), size * 0.36, pen.pick(((70, 66, 26), (52, 60, 30))))


def _clover(pen: _Pen, spot: _Spot, size: float) -> None:
    white = pen.pick(_WHITES)
    x, y = spot[:2]
    for k, (petals, reach) in enumerate(((18, 0.62), (18, 0.55), (15, 0.44), (11, 0.32), (7, 0.2))):
        shade = _tint(white, 0.7 + 0.08 * k)
        layer = _spot(x, y - size * 0.06 * k, 0.9, 0)
        pen.ring(layer, petals, size * reach, size * 0.06, shade, _RAY, 0.18)


def _plantain(pen: _Pen, spot: _Spot, size: float) -> None:
    x, y = spot[:2]
    colour = pen.pick(((122, 112, 66), (104, 118, 62), (136, 120, 84)))
    for k in range(60):
        up = k / 60 * 2 - 1
        aside = (1 - up * up) * 0.3 * pen.between(-1, 1)
        shade = _tint(colour, pen.between(0.7, 1.3))
        pen.dot(x + aside * size, y - up * size, size * 0.1, shade)


def _leaf(pen: _Pen, spot: _Spot, size: float) -> None:
    turn, colour = pen.rng.randrange(256), pen.pick(_AUTUMN)
    x, y, ax, ay, bx, by = spot
    c, s = _COS[turn], _SIN[turn]
    ux, uy = (c * ax + s * bx) * size, (c * ay + s * by) * size
    whole = (x - ux, y - uy, ax, ay, bx, by)
    pen.petal(whole, turn, size * 2, size * pen.between(0.5, 0.9), colour, _LEAF)
    vein = int(x - ux * 1.3), int(y - uy * 1.3), int(x + ux), int(y + uy)
    pen.draw.line(vein, fill=_tint(colour, 0.7))


def _stone(pen: _Pen, spot: _Spot, size: float) -> None:
    colour = pen.pick(((150, 148, 142), (120, 116, 110), (196, 192, 184), (164, 150, 130)))
    for k, gain in enumerate((0.5, 0.8, 1.0, 1.15)):
        shift = size * 0.1 * k
        pen.dot(spot[0] - shift, spot[1] - shift, size * (1 - 0.2 * k), _tint(colour, gain), 0.7)


# --- The photo around it ---


def _blades(
    pen: _Pen, amount: int, size: float, colour: _Colour, upright: bool, top: float
) -> None:
    """Draw grass: lying any way from above; from the side upright, and larger when near."""
    wide, tall = pen.image.size
    spread = pen.rng.randrange(8, 36)
    thick = pen.between(0.03, 0.08)
    for k in range(amount):
        near = top + (1 - top) * (k / amount)
        turn = 192 + pen.rng.randrange(-spread, spread + 1) if upright else pen.rng.randrange(256)
        y = tall * near * 1.15 if upright else tall * pen.between(-0.1, 1.1)
        length = size * pen.between(0.5, 1.2) * (0.3 + 0.7 * near if upright else 1)
        root = _spot(pen.between(-0.1, 1.1) * wide, y, 1.0, 0)
        shade = _tint(colour, pen.between(0.65, 0.95) + 0.2 * (k / amount))
        pen.petal(root, turn, length, max(length * thick, 1.5), shade, _LEAF if k % 3 else _RAY)


def _backdrop(rng: Random, upright: bool) -> Image.Image:
    """Draw what is far away and blurred, at the photo's final size."""
    long = 160 + rng.randrange(161)
    short = long * (100, 75, 75, 67, 67, 67, 56)[rng.randrange(7)] // 100
    size = (short, long) if rng.random() < 0.25 else (long, short)
    colours = _EARTHS if rng.random() < 0.15 else _GREENS
    tiles = Image.new("RGB", (3 + rng.randrange(4), 2 + rng.randrange(4)))
    pen = _Pen(tiles, rng)
    base = pen.pick(colours, 0.2)
    sky = tiles.height // 2 if upright and pen.chance(0.3) else 0
    for x in range(tiles.width):
        for y in range(tiles.height):
            tile = pen.pick(_GREENS) if pen.chance(0.2) else base
            tile = pen.pick(_SKIES, 0.06) if y < sky else _tint(tile, pen.between(0.35, 1.3))
            tiles.putpixel((x, y), tile)
    pen = _Pen(tiles.resize(size, Image.Resampling.BICUBIC), rng)
    _blades(pen, 60 + rng.randrange(120), short * 0.3, base, upright, 0.5 if sky else 0.0)
    for _ in range(rng.randrange(14) if pen.chance(0.5) else 0):
        colours = (_YELLOWS, _WHITES, _BRIGHTS, _GREENS)[rng.randrange(4)]
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        pen.dot(x, y, short * pen.between(0.01, 0.05), pen.pick(colours, 0.25))
    blur = ImageFilter.BoxBlur(3 + rng.randrange(5))
    return pen.image.filter(blur).filter(blur)


_Plant = Callable[[_Pen, _Spot, float], None]

# What may grow, by colour: yellow, white, neither. The same colours in both classes.
_DANDELIONS: tuple[tuple[_Plant, ...], ...] = ((_dandelion,), (_clock,), (_bud,))
_OTHERS: tuple[tuple[_Plant, ...], ...] = (
    (partial(_buttercup, _YELLOWS), *[partial(_daisy, _YELLOWS)] * 2),
    (*[partial(_daisy, _WHITES)] * 4, _clover),
    (partial(_daisy, _BRIGHTS), partial(_buttercup, _BRIGHTS)),
)


def _scene(pen: _Pen, upright: bool, dandelion: bool) -> None:
    """Draw the lawn and what grows on it, seen from the side or from above."""
    rng = pen.rng
    wide, tall = pen.image.size
    short = min(wide, tall)
    grass = pen.pick(_GREENS, 0.2)
    top = pen.between(0.0, 0.9) if upright else 0.0
    bare = not dandelion and pen.chance(0.2)
    many = rng.randrange(40, 500) + (200 if bare else 0)
    _blades(pen, many, short * pen.between(0.12, 0.5), grass, upright, top)
    for _ in range(rng.randrange(14) if bare else rng.randrange(4)):
        litter = (_leaf, _leaf, _leaf, _stone, _plantain)[rng.randrange(5)]
        x, y = wide * rng.random(), tall * pen.between(max(top, 0.6) if upright else 0.0, 1.0)
        litter(pen, _spot(x, y, 0.8, 0), short * pen.between(0.02, 0.1 if bare else 0.08))

    amount = 0 if bare else (1, 1, 1, 2, 2, 3, 4, 6, 9)[rng.randrange(9)]
    size = short * pen.between(0.6, 1.0) * (0.46, 0.33, 0.26, 0.22, 0.19)[min(amount // 2, 4)]
    squash = pen.between(0.4, 0.8) if upright else pen.between(0.75, 1.0)
    # Yellow or white, and now and then another. Plain lawns have less yellow, so the others more.
    kinds = int(pen.chance(0.45 if dandelion else 0.3)), rng.randrange(3)
    if not upright and pen.chance(0.5):
        x, y = wide * pen.between(0.2, 0.8), tall * pen.between(0.3, 0.7)
        if dandelion:
            _rosette(pen, x, y, size * 1.8, grass)
        else:
            _trefoils(pen, x, y, short * 0.12, grass)
    for place in range(amount):
        plants = (_DANDELIONS if dandelion else _OTHERS)[kinds[place > 0 and pen.chance(0.4)]]
        edge = min(size * 0.8, short * 0.4)  # at most a little is cut off
        x = pen.between(edge, wide - edge)
        y = edge + (tall - 2 * edge) * (place + rng.random()) / amount
        grown = size * (0.65 + 0.5 * y / tall) if amount > 2 else size
        spot = _spot(x, y, squash * pen.between(0.85, 1.1), rng.randrange(-20, 21))
        if upright:
            _stem(pen, x, y, grown * 0.08, grass)
        plants[rng.randrange(len(plants))](pen, spot, grown)
    _blades(pen, rng.randrange(25), short * pen.between(0.1, 0.4), grass, upright, 0.8)


def _stem(pen: _Pen, x: float, y: float, thick: float, grass: _Colour) -> None:
    colour = pen.pick((grass, (150, 160, 90), (150, 116, 84)))
    fall = pen.image.height * 1.1 - y
    drift, bend = pen.between(-0.3, 0.3) * fall, pen.between(-0.3, 0.3) * fall
    bow = [(x + drift * k / 8 + bend * k * (8 - k) / 64, y + fall * k / 8) for k in range(9)]
    for gain, right in ((0.75, thick), (1.05, thick * 0.2)):
        there = [(px - thick, py) for px, py in bow]
        back = [(px + right, py) for px, py in reversed(bow)]
        pen.shape(there + back, _tint(colour, gain))


def _rosette(pen: _Pen, x: float, y: float, size: float, grass: _Colour) -> None:
    """Draw a dandelion's toothed leaves, flat on the ground."""
    start = pen.rng.randrange(40)
    for turn in range(start, start + 256, 36):
        length = size * pen.between(0.7, 1.1)
        green = _tint(grass, pen.between(0.7, 1.2))
        pen.petal(_spot(x, y, 0.9, 0), turn, length, length * 0.2, green, _TOOTHED)
        c, s = _COS[turn & 255], _SIN[turn & 255]
        rib = int(x), int(y), int(x + c * length * 0.9), int(y + s * length * 0.8)
        pen.draw.line(rib, fill=_tint(green, 1.35))


def _trefoils(pen: _Pen, x: float, y: float, size: float, grass: _Colour) -> None:
    """Draw a patch of clover leaves."""
    for _ in range(3 + pen.rng.randrange(12)):
        spot = _spot(x + pen.between(-4, 4) * size, y + pen.between(-3, 3) * size, 0.9, 0)
        green, grown = _tint(grass, pen.between(0.7, 1.2)), size * pen.between(0.5, 1.0)
        pen.ring(spot, 3, grown, grown * 0.5, green, _BROAD, 0.05)
        pen.ring(spot, 3, grown * 0.6, grown * 0.25, _tint(green, 1.25), _BROAD, 0.0)


def _exposed(image: Image.Image, rng: Random) -> Image.Image:
    """Add sun and shade, the light of the day, and now and then blur and grain."""
    shade = Image.new("L", (2 + rng.randrange(4), 2 + rng.randrange(4)))
    for y in range(shade.height):
        for x in range(shade.width):
            shade.putpixel((x, y), 165 + rng.randrange(91))
    shade = shade.resize(image.size, Image.Resampling.BICUBIC)
    image = ImageChops.multiply(image, Image.merge("RGB", (shade, shade, shade)))
    *gains, lift = _LIGHTS[rng.randrange(len(_LIGHTS))]
    strength = 1.0 + 0.35 * rng.random()
    curve = [min(int(v * gain * strength + lift), 255) for gain in gains for v in range(256)]
    image = image.point(curve)
    if rng.random() < 0.1:
        image = image.filter(ImageFilter.BoxBlur(1))
    if rng.random() < 0.2:
        grain = Image.frombytes("L", image.size, rng.randbytes(image.width * image.height))
        grain = grain.point([v // 20 for v in range(256)])
        image = ImageChops.add(image, Image.merge("RGB", (grain, grain, grain)), 1, -6)
    return image
