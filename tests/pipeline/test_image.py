import errno
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, ImageOps
from toys import encoded, photo

from meadow.pipeline.image import (
    FORMATS,
    MAX_PIXELS,
    SIGNATURE,
    Format,
    PhotoError,
    Preprocessing,
    decode,
    opened,
)

GREY = Image.new("L", (40, 30), 100)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG that claims a size and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("known", FORMATS, ids=lambda known: known.name)
def test_every_format_is_read_and_recognised(known: Format) -> None:
    """Each becomes RGB of the same size; a signature tells a damaged file from another kind."""
    data = encoded(photo(1), known.name)

    assert (decode(data).mode, decode(data).size) == ("RGB", (72, 80))
    assert Image.MIME[opened(data).format or ""] == known.media_type
    assert SIGNATURE.match(data)
    assert {Image.registered_extensions()[suffix] for suffix in known.suffixes} == {known.name}
    with pytest.raises(PhotoError) as caught:
        decode(data[:20])
    assert caught.value.reason == "damaged"


NO_MEMORY = OSError("out of memory error when reading image file")  # Pillow's way to say so
NO_DISK = OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize(
    ("owner", "step", "error", "expected"),
    [
        (Image, "open", MemoryError(), MemoryError),
        (Image, "open", NO_DISK, OSError),
        (ImageFile.ImageFile, "load", MemoryError(), MemoryError),
        (ImageFile.ImageFile, "load", NO_MEMORY, MemoryError),
        (ImageFile.ImageFile, "load", NO_DISK, OSError),
        (ImageOps, "exif_transpose", MemoryError(), MemoryError),
    ],
)
def test_a_lack_of_memory_or_a_broken_disk_is_not_the_photos_fault(
    owner: object,
    step: str,
    error: Exception,
    expected: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a set would depend on the machine, and a client would be blamed for the server."""

    def fail(*_: object, **__: object) -> None:
        raise error

    data = encoded(photo(1))
    monkeypatch.setattr(owner, step, fail)

    with pytest.raises(expected) as caught:
        decode(data)

    assert not isinstance(caught.value, PhotoError)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "format"),
        (b"not a photo at all", "format"),
        (encoded(photo(1), "GIF"), "format"),
        (encoded(photo(1), "BMP"), "format"),
        (b"%PDF-1.7\n", "format"),
        (encoded(photo(1))[:-200], "damaged"),
        (encoded(photo(1))[:20], "damaged"),
        (encoded(photo(1), "PNG")[:-200], "damaged"),
        (encoded(photo(1), "WEBP")[:-50], "damaged"),
        (png_header(20_000, 20_000), "too_large"),
        (png_header(8_000, 8_000), "too_large"),
        (encoded(Image.new("RGB", (7, 100))), "too_small"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_file_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    """Nothing but a `PhotoError` comes out of bad bytes, and it says what is wrong."""
    with pytest.raises(PhotoError) as caught:
        decode(data)

    assert reason == caught.value.reason
    assert "0x" not in str(caught.value)  # an address would differ from run to run


def test_a_huge_photo_is_refused_before_it_is_decoded() -> None:
    """A file of 57 bytes must not cost gigabytes of memory."""
    with pytest.raises(PhotoError, match=f"{MAX_PIXELS:,}"):
        decode(png_header(9_000, 9_000))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """A phone stores photos lying and says so in EXIF; all eight ways end upright."""
    upright = Image.new("RGB", (60, 40), "white")
    upright.paste((255, 0, 0), (0, 0, 30, 20))  # the upper left corner is red
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turn[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation

    image = decode(encoded(stored, "PNG", exif=exif))

    assert image.size == upright.size
    assert image.getpixel((5, 5)) == (255, 0, 0)
    assert image.getpixel((55, 35)) == (255, 255, 255)


def test_garbled_exif_does_not_hide_a_good_photo() -> None:
    """The pixels are fine, so the photo is."""
    data = encoded(photo(1), exif=b"Exif\x00\x00II*\x00garbage garbage garbage")

    assert decode(data).size == (72, 80)


def test_sixteen_bits_are_scaled_not_cut() -> None:
    """Pillow's own conversion turns every value above 255 white."""
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)

    grey = np.asarray(decode(encoded(Image.fromarray(values), "PNG")))

    assert np.abs(grey[..., 0].astype(int).ravel() - np.arange(256)).max() <= 1


def test_transparency_is_laid_on_white() -> None:
    """The colour under a transparent pixel is arbitrary and must not be seen."""
    clear = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    palette = Image.new("P", (20, 20), 0)
    palette.putpalette([200, 0, 0])

    for data in (
        encoded(clear, "PNG"),
        encoded(clear, "WEBP", lossless=True),
        encoded(palette, "PNG", transparency=0),
        encoded(Image.new("LA", (20, 20), (9, 0)), "PNG"),
    ):
        assert decode(data).getpixel((3, 3)) == (255, 255, 255)


def test_cmyk_grey_and_palette_become_rgb() -> None:
    """Print and scanner files are photos too."""
    red = Image.new("RGB", (20, 20), (255, 0, 0))

    assert decode(encoded(red.convert("CMYK"))).getpixel((3, 3)) == pytest.approx(
        (254, 0, 0), abs=3
    )
    assert decode(encoded(GREY)).getpixel((3, 3)) == pytest.approx((100, 100, 100), abs=1)
    assert decode(encoded(red.convert("P"), "PNG")).getpixel((3, 3)) == (255, 0, 0)


def test_of_an_animation_the_first_frame_is_taken() -> None:
    """The answer must not depend on which frame a decoder stopped at."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)

    assert decode(data).getpixel((3, 3)) == (255, 0, 0)


def test_squash_keeps_the_whole_photo_and_crop_its_middle() -> None:
    """Squash loses no dandelion at the edge; crop keeps proportions."""
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste((255, 255, 255), (0, 0, 100, 100))  # the left third is white

    squashed = Preprocessing(30, "squash").resized(wide)
    cropped = Preprocessing(30, "crop").resized(wide)

    assert squashed.shape == cropped.shape == (30, 30, 3)
    assert squashed[:, :9].min() == 255
    assert cropped[:, 2:].max() == 0


def test_a_scaled_decode_changes_next_to_nothing() -> None:
    """Photos of 12 megapixels are decoded at a fraction of their size; the input stays the same."""
    smooth = photo(3).resize((2000, 1500), Image.Resampling.BICUBIC)
    data = encoded(smooth, quality=95)
    preprocessing = Preprocessing(224, "squash")

    difference = preprocessing(data).astype(int) - preprocessing.resized(decode(data))

    assert preprocessing.read(data)[0].width < 2000
    assert np.abs(difference).max() <= 4


def test_a_colour_profile_is_not_in_the_way() -> None:
    """Photos of phones carry a profile; it is passed over."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = io.BytesIO()
    photo(1).save(file, "JPEG", icc_profile=profile)

    assert decode(file.getvalue()).mode == "RGB"
