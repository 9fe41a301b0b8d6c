"""Photos of something else: how far a photo is from the nearest ones that were learned from.

Distance to the k-th nearest neighbour (Sun 2022, arXiv 2204.06507), by what a photo shows, its
L2-normalised features, and by how it is textured, the spread of a middle block over places. On the
400 photos, against noise, text, blank and drawn pictures: AUROC 0.83 by features alone, 0.99 with
texture; of dandelions against grass alone and the reverse 0.88 and 0.91. Blank pictures hardly
excite the last layers at all, and look like everything there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from meadow.pipeline.hashing import hash_fraction

K = 5
MOST = 2000  # photos to compare with: 15 MB in the served graph at 1,856 numbers
SHOWN = 2 / 3  # weight of the features; texture has 1
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """What a new photo is compared with.

    A photo is the point (`SHOWN` features / |features|, (texture - mean) scale).

    Attributes:
        reference: points of photos that were learned from, (m, d + t).
        mean: of texture, (t,).
        scale: of texture, (t,).
        k: which neighbour counts, from 1.
        threshold: the distance to it up to which a photo is like those.

    """

    reference: Floats
    mean: Floats
    scale: Floats
    k: int
    threshold: float


def fit(features: Floats, texture: Floats, groups: Sequence[str], coverage: float) -> Neighbours:
    """Choose the reference, and the threshold that the share `coverage` of its photos passes.

    Each photo is judged without its own group of near-duplicates, as a new photo will be.

    Args:
        features: (n, d).
        texture: (n, t).
        groups: content key of each photo's group, n.
        coverage: share of photos like these that are to pass.

    """
    mean = texture.mean(axis=0)
    scale = 1 / np.maximum(texture.std(axis=0), 1e-6) / np.sqrt(texture.shape[1])
    shown = SHOWN * features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    points = np.concatenate([shown, (texture - mean) * scale], axis=1).astype(np.float32)
    order = sorted(range(len(points)), key=lambda i: (hash_fraction(groups[i]), i))[:MOST]
    reference, of = points[order], np.array(groups)[order]
    k = min(K, len(order) - 1) or 1
    squares = (reference**2).sum(axis=1)
    with threadpool_limits(1):
        found = [
            _distance(squares - 2 * reference @ point + point @ point, of != group, k)
            for point, group in zip(points, groups, strict=True)
        ]
    threshold = float(np.quantile(found, coverage, method="higher"))
    return Neighbours(reference, mean, scale, k, threshold)


def _distance(squared: Floats, other: NDArray[np.bool_], k: int) -> float:
    left = squared[other]
    if len(left) < k:
        return float(np.sqrt(max(squared.max(), 0)))
    return float(np.sqrt(max(np.partition(left, k - 1)[k - 1], 0)))
