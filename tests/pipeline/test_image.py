import errno
import io
import struct
import tracemalloc
import zlib
from typing import cast

import numpy as np
import pytest
from bad_photos import HEIC, HEIC_OF_NO_TEXT, HEIC_OF_NO_WIDTH
from PIL import Image, ImageCms, ImageFile, ImageOps
from toys import encoded, photo

from meadow.pipeline.formats import FORMATS, SIGNATURE, Format
from meadow.pipeline.image import (
    MAX_PIXELS,
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
    data = HEIC if known.name == "HEIF" else encoded(photo(1), known.name)

    assert (decode(data).mode, decode(data).size) == ("RGB", (72, 80))
    assert opened(data).format == known.name
    assert cast("ImageFile.ImageFile", opened(data)).get_format_mimetype() == known.media_type
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
        (ImageFile.ImageFile, "load", RuntimeError("Memory allocation error: x"), MemoryError),
        (ImageFile.ImageFile, "load", ValueError("Failed: Out of memory"), MemoryError),
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
        (encoded(photo(1), "ICO"), "format"),
        (encoded(photo(1), "GIF")[:-200], "damaged"),
        (HEIC[:-50], "damaged"),
        (HEIC.replace(b"\0\0\0\x48\0\0\0\x50", b"\0\0\0\x08\0\0\0\x08"), "damaged"),
        (HEIC_OF_NO_WIDTH, "damaged"),
        (HEIC_OF_NO_TEXT, "damaged"),
        (HEIC_OF_NO_TEXT.replace(b"\0\0\0\x15infe", b"\0\0\0\0infe"), "damaged"),
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


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>404</html>", "a web page"),
        (b"<HTML><body>Sign in</body></HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"PK\x03\x04", "a .zip file"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video"),
    ],
)
def test_what_is_no_photo_is_named(data: bytes, name: str) -> None:
    """A failed download is mended in another way than a damaged photo."""
    with pytest.raises(PhotoError, match=f"not a photo but {name}") as caught:
        decode(data)

    assert caught.value.reason == "format"


def test_a_heic_is_turned_by_its_container_alone() -> None:
    """By the standard its EXIF, which may say so too, does not count."""
    image = decode(HEIC)

    assert image.size == (72, 80)
    assert image.getpixel((5, 5)) == pytest.approx((255, 0, 0), abs=30)
    assert image.getpixel((60, 70)) == pytest.approx((255, 255, 255), abs=30)


def test_a_photo_with_another_behind_it_is_a_jpeg() -> None:
    """Phones append a depth map or a gain map: the container MPO is no format of its own."""
    data = encoded(photo(1), "MPO", save_all=True, append_images=[photo(2)])

    assert opened(data).format == "JPEG"
    assert decode(data).tobytes() == decode(encoded(photo(1), "JPEG")).tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_long_texts_of_a_png_are_passed_over_and_cost_no_memory() -> None:
    """Editors write megabytes of history; packed, a gigabyte of it has a megabyte."""
    plain = encoded(photo(1), "PNG")
    packed = zlib.compress(bytes(2**20 - 1))
    fitting = [png_chunk(b"zTXt", b"key%d\0\0" % number + packed) for number in range(400)]
    bomb = zlib.compress(bytes(20 * 2**20))
    large = [
        png_chunk(b"zTXt", b"Comment\0\0" + bomb),
        png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        png_chunk(b"iCCP", b"profile\0\0" + bomb),
        png_chunk(b"tEXt", b"workflow\0" + b"x" * 2_000_000),
    ]
    for chunks in (fitting, large):
        before, behind = plain[:33] + b"".join(chunks) + plain[33:], b"".join(chunks)
        for data in (before, plain[:-12] + behind + plain[-12:]):
            tracemalloc.start()
            image = decode(data)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert image.tobytes() == photo(1).tobytes()
            assert peak < 30 * 2**20


def test_a_small_text_of_a_png_still_turns_it() -> None:
    """Orientation may stand in XMP, which is a text."""
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    plain = encoded(photo(1), "PNG")
    chunk = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)

    assert decode(plain[:33] + chunk + plain[33:]).size == photo(1).size[::-1]


@pytest.mark.parametrize(("width", "height"), [(8064, 6048), (16320, 12240)])
def test_photos_of_todays_phones_are_read_in_reduced_size(width: int, height: int) -> None:
    """48 and 200 megapixels: their header counts, and what is decoded has a few."""
    data = encoded(Image.new("L", (width, height), 90), quality=5)

    image, pixels = Preprocessing(64, "squash").read(data)

    assert opened(data).size == (width, height)
    assert image.width * image.height < 4_000_000
    assert pixels.shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("data", "at_least"),
    [
        (encoded(Image.new("L", (8064, 6400)), quality=5), None),
        (encoded(Image.new("L", (8064, 6400)), quality=5, progressive=True), 64),
        (encoded(Image.new("RGB", (15000, 14000)), quality=1), 64),
        (encoded(Image.new("1", (8064, 6400)), "PNG"), 64),
    ],
    ids=["whole", "progressive", "210 megapixels", "PNG"],
)
def test_what_cannot_be_reduced_has_the_limit_of_memory(data: bytes, at_least: int | None) -> None:
    """Libjpeg holds all coefficients of a progressive JPEG, whatever the size that it gives."""
    with pytest.raises(PhotoError) as caught:
        decode(data, at_least)

    assert caught.value.reason == "too_large"


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
