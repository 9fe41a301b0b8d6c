"""Near-duplicate photos: a fingerprint of 1 KB per photo, and the pairs that show one picture.

A copy that was resized, re-encoded or cropped by a tenth is still the same picture. On the other
side of the split it would test what the network remembers, not what it has learned.

Two photos match when one as a whole correlates with a window of the other. What is correlated is
local contrast (each pixel of a 32x32 thumbnail less the mean around it, over the standard
deviation there), as its low-frequency DCT coefficients; plain grey would match any two photos
with a horizon. All sums are of integers small enough to be exact in their floating-point type, so
that neither the BLAS library, its threads nor the block size can change a verdict.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from meadow.curation.inverted_file import InvertedFile, norm, unit
from meadow.pipeline import parallel
from meadow.pipeline.cpu import cores
from meadow.pipeline.parallel import HERE, Machines

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
WIDTH = SIDE**2 + COLOUR_VALUES  # of a fingerprint
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

BLOCK = 64  # photos that are transformed at once
GROUP, GROUPS = 512, 512  # photos that are searched for at once, at least; such groups, about
PAIRS = 4096  # compared at once


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


def near_duplicates(
    fingerprints: NDArray[np.uint8], machines: Machines = HERE
) -> list[tuple[int, int]]:
    """Find the photos that show the same picture.

    Where many are alike, not all their pairs are listed, only enough to connect them: a photo with
    the same fingerprint as an earlier one is paired with the first of these alone, and flat photos
    with the few that stand for them.

    Args:
        fingerprints: (n, 1072), one row per photo. Time grows with n**1.5, memory beside them is a
            third of theirs (bench/RESULTS.md).
        machines: where candidates are looked for and compared.

    Returns:
        Pairs (i, j) of row numbers, i < j, in ascending order.

    Raises:
        ValueError: not a uint8 array of that shape.

    """
    if fingerprints.dtype != np.uint8 or fingerprints.shape[1:] != (WIDTH,):
        raise ValueError(
            f"fingerprints of type {fingerprints.dtype} and shape {fingerprints.shape}:"
            f" needs uint8 of shape (n, {WIDTH})"
        )
    first = _firsts(fingerprints)
    copies = np.flatnonzero(first != np.arange(len(first)))
    pairs = [np.stack([first[copies], copies], axis=1)]

    index = np.unique(first)
    colour = fingerprints[index, SIDE**2 :]
    order = np.lexsort((*colour.T, colour.sum(axis=1, dtype=np.int16)))  # brightness first
    index, colour = index[order], colour[order]
    # OpenBLAS's own threads cost a time slice per call on a busy machine.
    with threadpool_limits(1), ThreadPoolExecutor(cores(machines.workers)) as pool:
        groups = [index[start : start + GROUP] for start in range(0, len(index), GROUP)]
        looks = [*pool.map(lambda group: _look(_contrast(fingerprints, group)), groups)]
        energy = np.concatenate([[], *(energies for energies, _ in looks)])
        flat, picture = energy < (FLAT * SCALE * SIDE) ** 2, energy >= (BLANK * SCALE * SIDE) ** 2
        pairs.append(index[flat][_flat_pairs(colour[flat].astype(np.int16))])
        if picture.any():
            vectors = np.concatenate([vectors for _, vectors in looks])[picture]
            del looks
            file = InvertedFile(vectors, len(COARSE) ** 2, pool)
            search = _Search(fingerprints, index[picture], file)
            starts = range(0, len(search.index), search.group)
            pairs += parallel.ordered(
                search, starts, machines, title="near-duplicates", unit="group"
            )
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


def _firsts(fingerprints: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the place of the first photo with the same fingerprint as each, (n,)."""
    hashes = b"".join(hashlib.blake2b(row, digest_size=16).digest() for row in fingerprints)
    _, first, which = np.unique(
        np.frombuffer(hashes, "V16"), return_index=True, return_inverse=True
    )
    return first[which].astype(np.int64)


def _contrast(fingerprints: NDArray[np.uint8], photos: NDArray[np.int64]) -> NDArray[np.int16]:
    """Return the local contrast of some photos, (n, 32, 32)."""
    return _local_contrast(fingerprints[photos, : SIDE**2].reshape(-1, SIDE, SIDE))


def _look(contrast: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
    """Return the energy of photos, (n,), and what they are found by, (n, COARSE_SIZE**2)."""
    energy = np.einsum("nyx,nyx->n", contrast, contrast, dtype=np.int64)
    return energy, _coarse(contrast, WHOLE)[:, 0].astype(np.int16)


def _local_contrast(grey: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return (pixel - mean) / (deviation, at least 4 grey levels) over 7x7 px, times SCALE."""
    radius, area = 3, 7**2
    contrast = np.empty(grey.shape, np.int16)

    def sevens(values: NDArray[np.int32]) -> NDArray[np.int32]:
        two = values[:, :-1] + values[:, 1:]
        four = two[:, :-2] + two[:, 2:]
        total: NDArray[np.int32] = four[:, :-3] + two[:, 4:-1] + values[:, 6:]
        return total

    def box(values: NDArray[np.int32]) -> NDArray[np.int32]:
        return sevens(sevens(values).swapaxes(1, 2)).swapaxes(1, 2)

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


@dataclass(frozen=True)
class _Search:
    """Finds the pairs of some photos that are not flat.

    Attributes:
        fingerprints: of all photos.
        index: which of them are not flat, (n,), in an order that brings like colours together.
        file: what these are found by.

    """

    fingerprints: NDArray[np.uint8]
    index: NDArray[np.int64]
    file: InvertedFile

    @property
    def group(self) -> int:
        """How many photos are searched for at once: the more, the larger the products."""
        return max(GROUP, len(self.index) // GROUPS)

    def __call__(self, start: int) -> NDArray[np.int64]:
        """Return the pairs, (k, 2), in either order, of a group of photos from a place on."""
        contrast = _contrast(self.fingerprints, self.index[start : start + self.group])
        photo, other = self.file.search(_coarse(contrast, COARSE), CANDIDATE)
        pairs = np.unique(np.stack([photo, other], axis=1)[start + photo != other], axis=0)
        colour = self.fingerprints[:, SIDE**2 :]
        chosen = [np.empty((0, 2), np.int64)]
        for part in np.split(pairs, range(PAIRS, len(pairs), PAIRS)):
            one, two = self.index[start + part[:, 0]], self.index[part[:, 1]]
            difference = np.abs(colour[one].astype(np.int16) - colour[two]).sum(axis=1)
            near = difference <= SAME_COLOUR * COLOUR_VALUES
            near[near] = self._same_pictures(contrast, part[near, 0], two[near])
            chosen.append(np.stack([one[near], two[near]], axis=1))
        return np.concatenate(chosen)

    def _same_pictures(
        self, contrast: NDArray[np.int16], photos: NDArray[np.int64], others: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Tell which of the others, (k,), correlate with a window of the photos in `contrast`."""
        others, which = np.unique(others, return_inverse=True)
        blocks = np.split(others, range(BLOCK, len(others), BLOCK))
        views = [_coefficients(_contrast(self.fingerprints, b), WHOLE, FINE_SIZE) for b in blocks]
        wholes = np.concatenate(views)[which, 0]
        same = np.empty(len(photos), bool)
        for photo in np.unique(photos):
            pairs = np.flatnonzero(photos == photo)
            fine = _coefficients(contrast[photo : photo + 1], FINE, FINE_SIZE)[0]
            least = SAME_PICTURE * np.outer(norm(wholes[pairs]), norm(fine))
            same[pairs] = (wholes[pairs] @ fine.T >= least).any(axis=1)
        return same


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
