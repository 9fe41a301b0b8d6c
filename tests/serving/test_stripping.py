from typing import Any

import numpy as np
import pytest
from bad_photos import HEIC
from PIL import Image
from toys import encoded, photo

from meadow.pipeline.formats import NAMES
from meadow.pipeline.image import MAX_PIXELS, PhotoError, decode
from meadow.serving.stripping import ORIENTATION, stripped

OWNER = b"Ada Lovelace"


def named(image: Image.Image, orientation: int = 1, **options: Any) -> bytes:
    """Return a JPEG that names its owner wherever it can, also behind its end."""
    exif = Image.Exif()
    exif[0x013B], exif[ORIENTATION] = OWNER.decode(), orientation
    xmp = b"<x>" + OWNER + b"</x>"
    data = encoded(image, exif=exif, comment=OWNER, icc_profile=OWNER * 9, xmp=xmp, **options)
    return data + OWNER


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0, "quality": 100}],
    ids=str,
)
def test_a_jpeg_loses_its_words_and_no_pixel(orientation: int, options: dict[str, int]) -> None:
    """At full size and in part, upright as before."""
    data = named(photo(1, side=200), orientation, **options)
    assert data.count(OWNER) > 10
    bare, suffix = stripped(data, MAX_PIXELS)

    assert suffix == ".jpg"
    assert OWNER not in bare
    for size in (None, 40):
        assert np.array_equal(np.asarray(decode(bare, size)), np.asarray(decode(data, size)))


def test_a_second_picture_behind_the_first_goes() -> None:
    """A depth map, a gain map, the video of a motion photo."""
    first = encoded(photo(1))
    assert stripped(first + named(photo(2)), MAX_PIXELS)[0] == stripped(first, MAX_PIXELS)[0]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_of_a_jpeg_stay(mode: str) -> None:
    data = encoded(photo(1).convert(mode))
    bare, _ = stripped(data, MAX_PIXELS)
    assert np.array_equal(np.asarray(decode(bare)), np.asarray(decode(data)))


@pytest.mark.parametrize("kind", [name for name in NAMES if name != "JPEG"])
def test_another_format_becomes_its_pixels_alone(kind: str) -> None:
    """A browser shows it, whatever it was."""
    data = HEIC if kind == "HEIF" else encoded(photo(1), kind)
    bare, suffix = stripped(data, MAX_PIXELS)

    assert suffix == ".png"
    assert np.array_equal(np.asarray(decode(bare)), np.asarray(decode(data)))


def test_what_has_no_end_or_no_segments_is_refused() -> None:
    """Nothing is kept of what is not understood."""
    data = encoded(photo(1))
    for wrong in (data[:-2], data[:300], data[:20] + b"x" + data[20:]):
        with pytest.raises((ValueError, PhotoError)):
            stripped(wrong, MAX_PIXELS)
