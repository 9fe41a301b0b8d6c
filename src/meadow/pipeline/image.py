"""A photo: from the bytes of its file to the pixels that the network sees.

`Preprocessing.read` is the only way into the network, for training, for the test figures and in
the service, so that a served answer equals the evaluated one.
"""

import io
import re
import struct
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from meadow.pipeline.formats import NAMES, NO_PHOTOS, SIGNATURE

MAX_PIXELS = 50_000_000  # 200 MB in memory; phones without a reduced mode have up to 48 million
REDUCED = 4  # times as many may a JPEG have that is decoded at a fraction of its size
MAX_BYTES = 100_000_000  # of a file: far above any photo of `MAX_PIXELS`
MIN_SIDE = 8  # px; below, there is nothing to see

# Sizes are checked below; Pillow refuses twice its own limit while it reads the header.
Image.MAX_IMAGE_PIXELS = REDUCED * MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Reason = Literal["format", "damaged", "too_small", "too_large", "link"]


class PhotoError(ValueError):
    """The bytes are not a photo that Meadow takes; `reason` says why in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a photo file by its header; no pixel is decoded yet.

    Args:
        data: the whole file.
        max_pixels: of width times height; `REDUCED` times as many of a JPEG, as far as its header
            goes.

    Raises:
        PhotoError: none of `FORMATS`, damaged, too small, or too large.
        MemoryError: there is not enough.

    """
    if not _names_its_items(data):
        raise PhotoError("damaged", "damaged or truncated")
    try:
        image = Image.open(io.BytesIO(data), formats=NAMES)
    except Image.DecompressionBombError:
        raise PhotoError("too_large", f"more than {max_pixels:,} pixels") from None
    except Exception as error:  # Pillow raises a dozen types on damaged bytes
        _pass_on_errors_of_the_system(error)
        if SIGNATURE.match(data):
            raise PhotoError("damaged", "damaged or truncated") from None
        raise PhotoError("format", _what_it_is(data)) from None
    if image.format == "MPO":  # a JPEG with another behind it: a depth map, a gain map
        image.format = "JPEG"
    width, height = image.size
    reducible = image.format == "JPEG" and _is_decoded_by_rows(data)
    _refuse_too_large(image, max_pixels * (REDUCED if reducible else 1))
    if min(width, height) < MIN_SIDE:
        raise PhotoError("too_small", f"{width} x {height}: a side is under {MIN_SIDE} px")
    return image


def decode(data: bytes, at_least: int | None = None, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the bytes of a photo file to upright RGB.

    The EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to
    8 bits, CMYK is converted, and of an animation the first frame is taken.

    Args:
        data: the whole file.
        at_least: if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size (libjpeg's scaled
            DCT), as long as both sides stay this many pixels or more: 3 to 4 times faster
            on photos of 12 megapixels.
        max_pixels: of width times height, as decoded.

    Raises:
        PhotoError: see `opened`.
        MemoryError: there is not enough.

    """
    image = opened(data, max_pixels)
    try:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        _refuse_too_large(image, max_pixels)
        image.load()
        return _rgb(_upright(image))
    except PhotoError:
        raise
    except Exception as error:
        _pass_on_errors_of_the_system(error)
        raise PhotoError("damaged", f"damaged or truncated: {str(error).strip()}") from None


def _refuse_too_large(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        size = f"{image.width} x {image.height}"
        raise PhotoError("too_large", f"{size}: more than {max_pixels:,} pixels")


def _what_it_is(data: bytes) -> str:
    for signature, name in NO_PHOTOS:
        if re.match(signature, data, re.DOTALL | re.IGNORECASE):
            return f"not a photo but {name}"
    return f"not a {', '.join(NAMES)} file"


def _is_decoded_by_rows(data: bytes) -> bool:
    """Tell whether all colours of a JPEG are in one scan.

    Of others, progressive ones among them, libjpeg holds all coefficients: 6 bytes a pixel,
    whatever the fraction at which it decodes.
    """
    at, colours = 2, 0
    while at + 10 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker in (0xFFC0, 0xFFC1):  # start of a frame that is not progressive
            colours = data[at + 9]
        if marker == 0xFFDA:  # start of a scan
            return data[at + 4] == colours
        at += 2 + length
    return False


def _names_its_items(data: bytes) -> bool:
    """Tell whether the types and names of a HEIC photo's items are text, where it is one.

    Of others pi-heif 1.4.0 makes no string, uses it, and the process ends.
    """
    at, end = 0, len(data) if data[4:8] == b"ftyp" else 0
    while at + 16 <= end:  # its boxes: size, kind, content
        size, kind, long_size = struct.unpack_from(">I4sQ", data, at)
        after = at + (long_size if size == 1 else size or end)
        if kind == b"meta":
            for item in re.finditer(rb"(?=(....)infe)", data[at:after], re.DOTALL):
                first = at + item.start()
                length = int.from_bytes(item[1])
                try:
                    data[first + 16 : first + length].decode()
                except UnicodeDecodeError:
                    return False
                if length < 20:  # or written in another way, which nobody does
                    return False
        at = max(after, at + 8)
    return True


def _pass_on_errors_of_the_system(error: Exception) -> None:
    """Raise what is not the photo's fault: a lack of memory, and an error of the system.

    Pillow reads from memory here, so an `OSError` with a number is not about the bytes. A lack of
    memory is in the words of an error; libheif says so also of a photo that lies about its size, or
    has none.
    """
    words = str(error).lower()
    lies = re.search("security limit|invalid image size", words)
    if re.search("out of memory|memory allocation", words) and not lies:
        raise MemoryError(str(error)) from error
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        raise error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # a garbled EXIF block says nothing about the pixels
        _pass_on_errors_of_the_system(error)
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow's own conversion cuts 16-bit values off at 255: nearly everything turns white.
        grey = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((grey + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Preprocessing:
    """From an RGB photo to the network's input; travels with the weights in model.json.

    Attributes:
        size: side of the network's square input, pixels.
        resize: `squash` the whole photo into the square, or `crop` its middle square.

    """

    size: int
    resize: Literal["squash", "crop"]

    def __call__(self, data: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """Return the network's input alone; see `read`."""
        return self.read(data, max_pixels)[1]

    def read(
        self, data: bytes, max_pixels: int = MAX_PIXELS
    ) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Decode and resize one photo.

        A JPEG is decoded at a fraction of its size that leaves twice the network's input or more:
        the antialiased resize then still averages over real pixels.

        Args:
            data: the bytes of a photo file.
            max_pixels: of width times height, as decoded.

        Returns:
            The photo, RGB; and its pixels for the network, (size, size, 3), RGB, 0 to 255. Mean
            and standard deviation are applied inside the network's graph.

        Raises:
            PhotoError, MemoryError: see `decode`.

        """
        image = decode(data, 2 * self.size, max_pixels)
        return image, self.resized(image)

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """Resize a decoded RGB photo, antialiased: (size, size, 3), RGB, 0 to 255."""
        area = self.area(image.width, image.height)
        square = image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=area)
        return np.asarray(square)

    def area(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of what the network sees of a photo, pixels."""
        if self.resize == "squash":
            return 0, 0, width, height
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
