"""Near-duplicate photos: a fingerprint of 1 KB per photo, and the pairs that show one picture.

A copy that was resized, re-encoded or cropped by a tenth is still the same picture. On the other
side of the split it would test what the network remembers, not what it has learned.

Two photos match when one as a whole correlates with a window of the other. What is correlated is
local contrast (each pixel of a 32x32 thumbnail less the mean around it, over the standard
deviation there), as its low-frequency DCT coefficients; plain grey would match any two photos
with a horizon. All sums are of integers small enough to be exact in their floating-point type, so
that neither the BLAS library, its threads nor the block size can change a verdict.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from meadow.curation.inverted_file import InvertedFile, norm, unit
from meadow.pipeline.cpu import cores

# Smallest correlation of two views of one picture. Of 12,000 copies of 400 photos of dandelions and
# grass (30 kinds: resized to 0.5 or 2 times or to 48 px, quality 30, a tenth cropped off, pairs of
# these) the lowest had 0.70, 1 % had less than 0.85. The highest of the 79,797 pairs of different
# pictures had 0.50, and 0.66 when one of the two was cropped as well.
SAME_PICTURE = 0.68
# Largest mean difference of the 4x4 RGB thumbnails, in grey levels: up to 33 for the same copies,
# 55 at the median of two photos. It tells apart what is drawn from few shapes: of 400 colour blobs
# 60 to 90 pairs correlate, none of them in these colours.
SAME_COLOUR = 36
# A photo whose local contrast has a smaller root mean square shows nothing to correlate, and is
# spared the search: photos have 0.33 or more, gradients 0.12 or less.
BLANK = 0.15
# A flat photo, a gradient or a blank page, matches another when no value of their 4x4 RGB
# thumbnails differs by more grey levels (quality 30 moves them by up to 6). The bands that quality
# 30 leaves in a gradient have contrasts up to 0.27: between the two limits, either rule will do.
FLAT = 0.30
SAME_FLAT = 8

SIDE, COLOUR_SIDE = 32, 4  # px, of the grey and the RGB thumbnail
COLOUR_VALUES = 3 * COLOUR_SIDE**2
SCALE = 16  # integer steps per unit, of local contrast and of the DCT basis

# Windows along one axis as (start, length) in fractions of the photo, combined for both axes.
# Crops of a tenth leave 0.9, at an offset of 0 to 0.1 that the fine windows miss by 0.0125 at most.
Windows = tuple[tuple[float, float], ...]
WHOLE: Windows = ((0.0, 1.0),)
FINE: Windows = (*WHOLE, (0.0, 0.9), (0.025, 0.9), (0.05, 0.9), (0.075, 0.9), (0.1, 0.9))
FINE_SIZE = 14  # DCT coefficients per axis
# Candidates are found at windows that miss a crop by 0.025 at most. Of 12,000 copies two in a
# thousand correlate by less than 0.72 there; of pairs of different photos three in a million by
# more.
COARSE: Windows = (*WHOLE, (0.0, 0.9), (0.05, 0.9), (0.1, 0.9))
COARSE_SIZE = 8
CANDIDATE = 0.6

BLOCK, GROUP = 64, 512  # photos: transformed at once, and searched for at once


def fingerprint(image: Image.Image) -> NDArray[np.uint8]:
    """Reduce a photo to what `near_duplicates` compares.

    Args:
        image: RGB, at least 8x8 px.

    Returns:
        (1072,): a 32x32 grey thumbnail, then a 4x4 RGB one, row by row.

    Raises:
        ValueError: a side is shorter than 8 px.

    """
    if min(image.size) < 8:
        raise ValueError(f"a photo of {image.width}x{image.height} px: needs at least 8x8 px")
    # Weights of both filters are rational and Pillow rounds them to integers: the same bytes on
    # every machine. The gap halves the time, to 0.2 ms at 500 px.
    size = (SIDE, SIDE)
    small = image.convert("RGB").resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    colour = small.resize((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    return np.concatenate([np.asarray(small.convert("L")).ravel(), np.asarray(colour).ravel()])


def near_duplicates(fingerprints: NDArray[np.uint8], workers: int = 0) -> list[tuple[int, int]]:
    """Find the photos that show the same picture.

    Where many are alike, not all their pairs are listed, only enough to connect them: a photo with
    the same fingerprint as an earlier one is paired with the first of these alone, and flat photos
    with the few that stand for them.

    Args:
        fingerprints: (n, 1072), one row per photo. Time grows with n**1.5, memory with n
            (bench/RESULTS.md).
        workers: threads; see `cpu.cores`.

    Returns:
        Pairs (i, j) of row numbers, i < j, in ascending order.

    Raises:
        ValueError: not a uint8 array of that shape.

    """
    width = SIDE**2 + COLOUR_VALUES
    if fingerprints.dtype != np.uint8 or fingerprints.shape[1:] != (width,):
        raise ValueError(
            f"fingerprints of type {fingerprints.dtype} and shape {fingerprints.shape}:"
            f" needs uint8 of shape (n, {width})"
        )
    first: dict[bytes, int] = {}
    copies = [(first.setdefault(row.tobytes(), i), i) for i, row in enumerate(fingerprints)]
    pairs = [np.array([pair for pair in copies if pair[0] < pair[1]], np.int64).reshape(-1, 2)]

    index = np.fromiter(first.values(), np.int64)
    colour = fingerprints[index, SIDE**2 :].astype(np.int16)
    order = np.lexsort((*colour.T, colour.sum(axis=1)))  # brightness first
    index, colour = index[order], colour[order]
    contrast = _local_contrast(fingerprints[index, : SIDE**2].reshape(-1, SIDE, SIDE))
    energy = np.einsum("nyx,nyx->n", contrast, contrast, dtype=np.int64)
    flat, picture = energy < (FLAT * SCALE * SIDE) ** 2, energy >= (BLANK * SCALE * SIDE) ** 2
    pairs.append(index[flat][_flat_pairs(colour[flat])])
    pairs.append(index[picture][_picture_pairs(contrast[picture], colour[picture], workers)])
    unique = np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0)
    return [(i, j) for i, j in unique.tolist()]


def duplicate_groups(n: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Join photos that are connected by pairs, directly or through others.

    Args:
        n: number of photos.
        pairs: as from `near_duplicates`.

    Returns:
        The smallest photo number in the group of each photo; its own where it is alone.

    """
    group = list(range(n))

    def root(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = group[i]
        return i

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        group[high] = low
    return [root(i) for i in range(n)]


def _local_contrast(grey: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return (pixel - mean) / (deviation, at least 4 grey levels) over 7x7 px, times SCALE."""
    radius = 3
    side, area = 2 * radius + 1, (2 * radius + 1) ** 2
    contrast = np.empty(grey.shape, np.int16)

    def box(values: NDArray[np.int32]) -> NDArray[np.int32]:
        total = np.pad(values, ((0, 0), (1, 0), (1, 0))).cumsum(1, np.int32).cumsum(2, np.int32)
        rows: NDArray[np.int32] = total[:, side:] - total[:, :-side]
        return rows[:, :, side:] - rows[:, :, :-side]

    for start in range(0, len(grey), BLOCK):
        block = grey[start : start + BLOCK].astype(np.int32)
        # An odd reflection goes on with a gradient, so that its border is as flat as the rest.
        around = ((0, 0), (radius, radius), (radius, radius))
        padded = np.pad(block, around, mode="reflect", reflect_type="odd")
        total = box(padded)
        deviation = np.sqrt(area * box(padded**2) - total**2 + (4 * area) ** 2)
        contrast[start : start + BLOCK] = np.rint(SCALE * (area * block - total) / deviation)
    return contrast


def _coefficients(contrast: NDArray[np.int16], windows: Windows, size: int) -> NDArray[np.float64]:
    """Return (n, windows**2, size**2) DCT coefficients of each window, without the mean.

    Integers, with norms below 6e7, so that sums of their products are exact (below 2**53).
    """
    pixel, frequency = np.arange(SIDE), np.arange(size)[:, None]
    wave = np.cos(np.pi * frequency * (pixel + 0.5) / SIDE)
    wave *= (frequency + 1) ** 0.25  # whitens what local contrast leaves of the photos' spectrum
    wave[0] *= 0.5**0.5
    bases = []
    for start, length in windows:
        edge = SIDE * start + length * np.arange(SIDE + 1)
        low, high = edge[:-1, None], edge[1:, None]
        overlap = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None)
        bases.append(np.rint(SCALE * wave @ overlap / length))
    basis = np.concatenate(bases)
    n = len(windows)
    table: NDArray[np.float64] = basis @ contrast.astype(np.float64) @ basis.T
    table = table.reshape(-1, n, size, n, size).swapaxes(2, 3).reshape(-1, n * n, size * size)
    table[:, :, 0] = 0
    return table


def _coarse(contrast: NDArray[np.int16], windows: Windows) -> NDArray[np.float32]:
    """Return (n, windows**2, COARSE_SIZE**2), as of `inverted_file.unit`."""
    blocks = [contrast[start : start + BLOCK] for start in range(0, len(contrast), BLOCK)]
    return np.concatenate([unit(_coefficients(block, windows, COARSE_SIZE)) for block in blocks])


def _picture_pairs(
    contrast: NDArray[np.int16], colour: NDArray[np.int16], workers: int
) -> NDArray[np.int64]:
    """Return the (k, 2) pairs, in either order, of photos that are not flat."""
    n = len(contrast)
    if not n:
        return np.empty((0, 2), np.int64)
    groups = [slice(start, start + GROUP) for start in range(0, n, GROUP)]
    # OpenBLAS's own threads cost a time slice per call on a busy machine.
    with threadpool_limits(1), ThreadPoolExecutor(cores(workers)) as pool:
        whole = np.concatenate(
            [*pool.map(lambda group: _coarse(contrast[group], WHOLE)[:, 0], groups)]
        )
        photos = InvertedFile(whole, len(COARSE) ** 2, pool)

        def compare(group: slice) -> NDArray[np.int64]:
            photo, other = photos.search(_coarse(contrast[group], COARSE), CANDIDATE)
            pairs = np.stack([group.start + photo, other], axis=1)
            pairs = np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
            difference = np.abs(colour[pairs[:, 0]] - colour[pairs[:, 1]]).sum(axis=1)
            return _same_pictures(contrast, pairs[difference <= SAME_COLOUR * COLOUR_VALUES])

        return np.concatenate([*pool.map(compare, groups)])


def _same_pictures(contrast: NDArray[np.int16], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs whose second photo correlates with a window of the first."""
    photos, starts = np.unique(pairs[:, 0], return_index=True)
    same = [np.empty(0, bool)]
    for photo, others in zip(photos, np.split(pairs[:, 1], starts[1:]), strict=False):
        views = _coefficients(contrast[photo : photo + 1], FINE, FINE_SIZE)[0]
        for start in range(0, len(others), BLOCK):
            block = contrast[others[start : start + BLOCK]]
            whole = _coefficients(block, WHOLE, FINE_SIZE)[:, 0]
            least = SAME_PICTURE * np.outer(norm(whole), norm(views))
            same.append((whole @ views.T >= least).any(axis=1))
    chosen: NDArray[np.int64] = pairs[np.concatenate(same)]
    return chosen


def _flat_pairs(colour: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return (k, 2) pairs, in either order, that connect flat photos, which come by brightness.

    A photo that looks like none before it is paired with all that look like it. So thousands of
    blank pages make thousands of pairs, not millions.
    """
    light = colour.sum(axis=1)
    limit = SAME_FLAT * COLOUR_VALUES
    low = np.searchsorted(light, light - limit)
    high = np.searchsorted(light, light + limit, "right")
    alone = np.ones(len(light), bool)
    matches = [np.empty((0, 2), np.int64)]
    for i in range(len(light)):
        if alone[i]:
            corner = colour[low[i] : high[i], 0]
            j = low[i] + np.flatnonzero(np.abs(corner - colour[i, 0]) <= SAME_FLAT)
            j = j[np.abs(colour[j] - colour[i]).max(axis=1) <= SAME_FLAT]
            alone[j] = False
            j = j[j != i]
            matches.append(np.stack([np.full_like(j, i), j], axis=1))
    return np.concatenate(matches)
