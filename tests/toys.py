"""Small photos and photo sets, drawn in a moment."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SetParams = Callable[..., None]
TINTS = ((200, 180, 40), (40, 120, 60), (90, 60, 160), (180, 60, 60), (60, 160, 180))


def photo(number: int, tint: tuple[int, int, int] = TINTS[0], side: int = 72) -> Image.Image:
    """Draw a photo of coarse random blocks in shades of one colour; each number looks different."""
    blocks = np.random.default_rng(number).integers(0, 160, (6, 6, 1))
    pixels = np.clip(blocks + np.array(tint) - 80, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side + 8), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def draw_set(folder: Path, counts: dict[str, int]) -> Path:
    """Draw so many photos of each class."""
    number = 0
    for tint, (label, count) in zip(TINTS, counts.items(), strict=False):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            (folder / label / f"{i:03}.jpg").write_bytes(encoded(photo(number, tint), quality=92))
            number += 1
    return folder
