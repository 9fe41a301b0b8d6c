"""A look at one file of a set: a photo with what the later steps need of it, or what is wrong."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meadow.curation import near_duplicates
from meadow.curation.discovery import PhotoFile
from meadow.pipeline import places
from meadow.pipeline.image import PhotoError, Preprocessing, opened
from meadow.pipeline.places import Place


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
    where: Place, file: PhotoFile, preprocessing: Preprocessing, min_side: int
) -> tuple[GoodPhoto, NDArray[np.uint8], NDArray[np.uint8]] | BadPhoto:
    """Read and decode one file.

    Args:
        where: the set; a link that leads out of its folder is bad, except into a DVC cache.
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
    try:
        data = places.read(where, file.path)
        header = opened(data)
        width, height = header.size
        if min(width, height) < min_side:
            return BadPhoto(file, "too_small", f"{width} x {height}: a side is under {min_side} px")
        image, pixels = preprocessing.read(data)
    except PhotoError as error:
        return BadPhoto(file, error.reason, str(error))
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
