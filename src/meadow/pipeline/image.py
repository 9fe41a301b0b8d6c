"""A photo: from the bytes of its file to the pixels that the network sees.

`Preprocessing.read` is the only way into the network, for training, for the test figures and in
the service, so that a served answer equals the evaluated one.
"""

import io
import re
import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


class Format(NamedTuple):
    """A file format that is read: Pillow's name of it, and how its files are recognised."""

    name: str
    suffixes: tuple[str, ...]
    signature: bytes  # a regular expression for the first bytes
    media_type: str


# All that Meadow knows of formats: import, discovery, service and page take it from here.
FORMATS = (
    Format("JPEG", (".jpg", ".jpeg"), rb"\xff\xd8\xff", "image/jpeg"),
    Format("PNG", (".png",), rb"\x89PNG\r\n\x1a\n", "image/png"),
    Format("WEBP", (".webp",), rb"RIFF....WEBP", "image/webp"),
)
NAMES = tuple(known.name for known in FORMATS)
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
MEDIA_TYPES = tuple(known.media_type for known in FORMATS)
OTHER_SUFFIXES = (".avif", ".bmp", ".gif", ".heic", ".heif", ".tif", ".tiff")  # photos, not read
SIGNATURE = re.compile(b"|".join(known.signature for known in FORMATS), re.DOTALL)

MAX_PIXELS = 40_000_000  # 160 MB in memory; a phone's photo has 12 to 50 million, most far under
MAX_BYTES = 100_000_000  # of a file: far above any photo of `MAX_PIXELS`
MIN_SIDE = 8  # px; below, there is nothing to see

# Sizes are checked against MAX_PIXELS below, and a photo with garbled EXIF is taken as it lies.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", message="Corrupt EXIF data")

Reason = Literal["format", "damaged", "too_small", "too_large"]


class PhotoError(ValueError):
    """The bytes are not a photo that Meadow takes; `reason` says why in one word."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def opened(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Open a photo file by its header; no pixel is decoded yet.

    Args:
        data: the whole file.
        max_pixels: of width times height.

    Raises:
        PhotoError: none of `FORMATS`, damaged, too small, or too large.
        MemoryError: there is not enough.

    """
    try:
        image = Image.open(io.BytesIO(data), formats=NAMES)
    except Image.DecompressionBombError:
        raise PhotoError("too_large", f"more than {max_pixels:,} pixels") from None
    except Exception as error:  # Pillow raises a dozen types on damaged bytes
        _pass_on_errors_of_the_system(error)
        if SIGNATURE.match(data):
            raise PhotoError("damaged", "damaged or truncated") from None
        raise PhotoError("format", f"not a {', '.join(NAMES)} file") from None
    width, height = image.size
    if width * height > max_pixels:
        raise PhotoError("too_large", f"{width} x {height}: more than {max_pixels:,} pixels")
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
        max_pixels: of width times height.

    Raises:
        PhotoError: see `opened`.
        MemoryError: there is not enough.

    """
    image = opened(data, max_pixels)
    try:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        image.load()
        return _rgb(_upright(image))
    except Exception as error:
        _pass_on_errors_of_the_system(error)
        raise PhotoError("damaged", f"damaged or truncated: {error}") from None


def _pass_on_errors_of_the_system(error: Exception) -> None:
    """Raise what is not the photo's fault: a lack of memory, and an error of the system.

    Pillow reads from memory here, so an `OSError` with a number is not about the bytes; without
    one it may say that there is no memory.
    """
    if isinstance(error, OSError) and error.errno is None and "out of memory" in str(error):
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
        grey = np.asarray(image).astype(np.uint32)
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
            max_pixels: of width times height.

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
