"""What is measured of a photo for the record: the service's events have it, and train's reference.

Cheap on purpose: 0.05 ms of the 5 to 10 ms that a photo takes.
"""

import numpy as np
from numpy.typing import NDArray

from meadow.pipeline.image import Preprocessing

LOOK = ("brightness", "contrast", "detail", "warmth", "side")
SIGNALS = ("confidence", "distance", *LOOK, "bytes")
HARMLESS = ("side", "bytes")  # photos of another size may show the same: told, but no alarm
LATER = ("detail", "side")  # older events and references lack them
DIGITS = 6  # of probabilities and distances, everywhere: many are 1 but for rounding
FINER = 1.3  # power of a photo's own pixels with which sharpness falls, where they are too few


def look(
    pixels: NDArray[np.uint8], preprocessing: Preprocessing, width: int, height: int
) -> dict[str, float]:
    """Measure what the network sees of one photo, (size, size, 3), RGB.

    Args:
        pixels: of the network's input, made by `preprocessing`.
        preprocessing: the network's.
        width: of the photo, pixels; or of what was decoded of it, at least twice the input's size.
        height: likewise.

    Returns:
        `brightness` and `contrast`, the mean and standard deviation of all values, 0 to 255;
        `sharpness`, the mean absolute second difference of green along rows; `warmth`, how much
        more red than green there is; `side`, the shorter side in pixels, of those that the network
        can see; and `detail`, sharpness for the contrast and the size of the photo: a smaller copy
        of a photo has the same. All from a part of the pixels, which is enough for a mean.

    """
    seen = np.ascontiguousarray(pixels[::8, ::8])
    red, green, _ = seen.reshape(-1, 3).mean(axis=0)
    rows = pixels[::8, :, 1].astype(np.int16)
    contrast, sharpness = float(seen.std()), float(np.abs(np.diff(rows, 2)).mean())
    left, top, right, bottom = preprocessing.area(width, height)
    enlarged = min(1.0, (right - left) / preprocessing.size) ** FINER
    return {
        "brightness": round(float(seen.mean()), 2),
        "contrast": round(contrast, 2),
        "sharpness": round(sharpness, 2),
        "warmth": round(float(red - green), 2),
        "side": round(min(right - left, bottom - top, 2 * preprocessing.size)),
        "detail": round(sharpness / max(contrast, 1.0) / enlarged, 4),
    }
