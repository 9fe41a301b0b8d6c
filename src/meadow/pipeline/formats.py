"""The file formats that are read, and how Pillow reads them."""

import logging
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pi_heif
from PIL import AvifImagePlugin, PngImagePlugin


class Format(NamedTuple):
    """A file format that is read: Pillow's name of it, and how its files are recognised."""

    name: str
    suffixes: tuple[str, ...]
    signature: bytes  # a regular expression for the first bytes
    media_type: str


# All that Meadow knows of formats: import, discovery, service and page take it from here.
FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jfif"), rb"\xff\xd8\xff", "image/jpeg"),
    Format("PNG", (".png",), rb"\x89PNG\r\n\x1a\n", "image/png"),
    Format("WEBP", (".webp",), rb"RIFF....WEBP", "image/webp"),
    Format("HEIF", (".heic", ".heif"), rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", "image/heic"),
    Format("AVIF", (".avif",), rb"....ftypavi[fs]", "image/avif"),
    Format("TIFF", (".tif", ".tiff"), rb"II\*\0|MM\0\*|II\+\0|MM\0\+", "image/tiff"),
    Format("GIF", (".gif",), rb"GIF8[79]a", "image/gif"),
    Format("BMP", (".bmp",), rb"BM....\0\0\0\0", "image/bmp"),
)
NAMES = tuple(known.name for known in FORMATS)
SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
MEDIA_TYPES = tuple(known.media_type for known in FORMATS)
SIGNATURE = re.compile(b"|".join(known.signature for known in FORMATS), re.DOTALL)
NO_PHOTOS = (  # what often has the name of a photo
    (rb"\Z", "an empty file"),
    (rb"(\xef\xbb\xbf)?\s*<(!doctype html|html)", "a web page (HTML), as of a failed download"),
    (rb"version https://git-lfs", "a Git LFS pointer; `git lfs pull` fetches the photo"),
    (rb"%PDF", "a PDF"),
    (rb"PK\x03\x04", "a .zip file"),
    (rb"....ftyp(isom|mp4|qt)", "a video"),
)

# What is wrong with a TIFF, and with EXIF, which is one, is raised or no reason to refuse a photo.
logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

# One thread a photo, and of a HEIC file the photo alone
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
pi_heif.register_heif_opener(
    thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
)

MAX_TEXT = 4 << 20  # bytes of a PNG's texts that are kept
ReadChunk = Callable[[PngImagePlugin.PngStream, int, int], bytes]


def _within_limits(read: ReadChunk) -> ReadChunk:
    """Pass over what is too large of a PNG's texts and colour profile; Pillow fails with it."""

    def chunk(stream: PngImagePlugin.PngStream, position: int, length: int) -> bytes:
        file = stream.fp
        assert file is not None  # noqa: S101  # as in Pillow
        try:
            if stream.text_memory <= MAX_TEXT:
                return read(stream, position, length)
        except ValueError:  # unpacks to more than 1 MB
            file.seek(position)
        return file.read(length)

    return chunk


for _kind in ("tEXt", "zTXt", "iTXt", "iCCP"):
    _name = f"chunk_{_kind}"
    _read = getattr(PngImagePlugin.PngStream, _name)
    setattr(PngImagePlugin.PngStream, _name, _within_limits(_read))
