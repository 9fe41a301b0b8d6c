"""A look at one file of a set: a photo with what the later steps need of it, or what is wrong."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.curation import discovery, near_duplicates
from meadow.curation.discovery import PhotoFile
from meadow.errors import MeadowError
from meadow.pipeline.image import MAX_BYTES, PhotoError, Preprocessing, opened


@dataclass(frozen=True, slots=True)
class GoodPhoto:
    """A photo that was decoded.

    Attributes:
        file: which one.
        sha256: of the file's bytes.
        width, height: as stored, pixels.
        size: of the file, bytes.
        format: one of `formats.NAMES`.
        pixels_sha256: of the network's input, the key of the photo's frozen features.

    """

    file: PhotoFile
    sha256: str
    width: int
    height: int
    size: int
    format: str
    pixels_sha256: str


@dataclass(frozen=True)
class BadPhoto:
    """A file that cannot be used: `reason` in one word, `detail` in a sentence."""

    file: PhotoFile
    reason: str
    detail: str


def inspect(
    folder: Path, file: PhotoFile, preprocessing: Preprocessing, min_side: int
) -> tuple[GoodPhoto, NDArray[np.uint8], NDArray[np.uint8]] | BadPhoto:
    """Read and decode one file.

    Args:
        folder: the set's folder; a link that leads out of it is bad, except into a DVC cache.
        file: the file.
        preprocessing: makes the network's input.
        min_side: a photo with a shorter side, in pixels, is bad.

    Returns:
        The photo, the network's input, uint8, (size, size, 3), and the photo's fingerprint, see
        `near_duplicates.fingerprint`; or what is wrong with it.

    Raises:
        MeadowError: the system cannot read the file. That says nothing of the photo, and a set
            must not depend on the state of a disk.
        MemoryError: there is not enough.

    """
    path = folder / file.path
    try:
        if discovery.leads_out(folder, path):
            return BadPhoto(file, "link", "a link that leads out of the set")
        if not path.is_file():
            return BadPhoto(file, "link", "a link to a folder or to nothing")
        if path.stat().st_size > MAX_BYTES:
            return BadPhoto(file, "too_large", f"more than {MAX_BYTES:,} bytes")
        data = path.read_bytes()
        header = opened(data)
        width, height = header.size
        if min(width, height) < min_side:
            return BadPhoto(file, "too_small", f"{width} x {height}: a side is under {min_side} px")
        image, pixels = preprocessing.read(data)
    except PhotoError as error:
        return BadPhoto(file, error.reason, str(error))
    except OSError as error:
        raise MeadowError(
            f"{str(path)!r} cannot be read: {error.strerror or error}. Check the disk and the"
            " permissions, then run this again."
        ) from None
    photo = GoodPhoto(
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        size=len(data),
        format=str(header.format),
        pixels_sha256=hashlib.sha256(pixels.data).hexdigest(),
    )
    return photo, pixels, near_duplicates.fingerprint(image)
