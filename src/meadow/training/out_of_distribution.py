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

from meadow.inference import conformal
from meadow.pipeline.hashing import hash_fraction

K = 5
REFERENCES = 2000  # photos to compare with: 15 MB in the served graph at 1,856 numbers
BLOCK = 256  # photos at once
FEATURES_WEIGHT = 2 / 3  # texture has 1
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """What a new photo is compared with.

    A photo is the point (`FEATURES_WEIGHT` features / |features|, (texture - mean) scale).

    Attributes:
        reference: points of photos that were learned from, (m, d + t).
        mean: of texture, (t,).
        scale: of texture, (t,).
        k: which neighbour counts, from 1.
        threshold: the distance to it up to which a photo is like those.
        distances: of the photos that set the threshold, each without its group, (n - unseen,).

    """

    reference: Vectors
    mean: Vectors
    scale: Vectors
    k: int
    threshold: float
    distances: NDArray[np.float64]


def fit(
    features: Vectors, texture: Vectors, groups: Sequence[str], coverage: float, unseen: int = 0
) -> Neighbours:
    """Choose the reference, and the threshold that the share `coverage` of photos passes.

    Each photo is judged without its own group of near-duplicates, as a new photo will be.

    Args:
        features: (n, d).
        texture: (n, t).
        groups: content key of each photo's group, n.
        coverage: share of photos like these that are to pass.
        unseen: the photos from this place on set the threshold: those that the network was not
            trained on. A frozen network was trained on none.

    """
    mean = texture.mean(axis=0)
    scale = 1 / np.maximum(texture.std(axis=0), 1e-6) / np.sqrt(texture.shape[1])
    norms = np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    content = FEATURES_WEIGHT * features / norms
    points = np.concatenate([content, (texture - mean) * scale], axis=1).astype(np.float32)
    order = sorted(range(len(points)), key=lambda i: (hash_fraction(groups[i]), i))[:REFERENCES]
    _, group = np.unique(groups, return_inverse=True)
    reference, reference_groups = points[order], group[order]
    k = min(K, len(order) - 1) or 1
    squares = (points**2).sum(axis=1)
    distances = np.empty(len(points))
    with threadpool_limits(1):
        for start in range(unseen, len(points), BLOCK):
            block = slice(start, start + BLOCK)
            squared = squares[order] - 2 * points[block] @ reference.T + squares[block, None]
            for i, row in enumerate(squared, start):
                distances[i] = _distance(row, reference_groups != group[i], k)
    distances = distances[unseen:]
    threshold = min(conformal.quantile(distances, coverage), float(distances.max()))
    return Neighbours(reference, mean, scale, k, threshold, distances)


def _distance(squared: Vectors, other: NDArray[np.bool_], k: int) -> float:
    others = squared[other]
    kth = np.partition(others, k - 1)[k - 1] if len(others) >= k else squared.max()
    return float(np.sqrt(max(kth, 0)))
