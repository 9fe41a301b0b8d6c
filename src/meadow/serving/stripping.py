"""A photo's file without what it says of its owner: place, time, camera, names, a second picture.

The pixels stay as they are, so that a kept photo gets the answer that it got.
"""

import io
import re
import struct

from PIL import Image

from meadow.pipeline.image import decode, opened

ORIENTATION = 0x0112
COLOUR = (0xE0, 0xEE)  # JFIF, Adobe: how the colours are coded
APPLICATION = range(0xE0, 0xF0)
COMMENT, SCAN, FILLING = 0xFE, 0xDA, 0xFF
END = b"\xff\xd9"
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # in a scan 0xFF stands before 0, or restarts it


def stripped(photo: bytes, max_pixels: int) -> tuple[bytes, str]:
    """Return a photo's file without metadata, and the suffix of its name.

    A JPEG loses its segments of metadata, of which the orientation alone stays, and what lies
    behind the picture; another format becomes a PNG of the upright pixels.

    Raises:
        PhotoError: see `decode`.
        ValueError: its segments cannot be followed.

    """
    image = opened(photo, max_pixels)
    if image.format != "JPEG":
        file = io.BytesIO()
        decode(photo, max_pixels=max_pixels).save(file, "PNG", compress_level=1)
        return file.getvalue(), ".png"
    return _jpeg(photo, image.getexif().get(ORIENTATION, 1)), ".jpg"


def _jpeg(photo: bytes, orientation: object) -> bytes:
    parts = [photo[:2]]
    if orientation in range(2, 9):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        parts.append(struct.pack(">BBH", 0xFF, 0xE1, len(block) + 2) + block)
    at = 2
    while photo[at : at + 2] != END:
        if photo[at : at + 1] != b"\xff" or at + 4 > len(photo):
            raise ValueError(f"no segment at byte {at}")
        marker, length = struct.unpack_from(">xBH", photo, at)
        after = at + 2 + length
        if marker == SCAN:
            following = MARKER.search(photo, after)
            after = following.start() if following else len(photo)
        if marker == FILLING:
            after = at + 1
        elif marker in COLOUR or (marker not in APPLICATION and marker != COMMENT):
            parts.append(photo[at:after])
        at = after
    return b"".join([*parts, END])
