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
from meadow.pipeline import parallel
from meadow.pipeline.hashing import hash_fraction
from meadow.pipeline.parallel import Machines

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
    features: Vectors,
    texture: Vectors,
    groups: Sequence[str],
    coverage: float,
    unseen: int = 0,
    *,
    workers: int = 0,
) -> Neighbours:
    """Choose the reference, and the threshold that the share `coverage` of photos passes.

    Each photo is judged without its own group of near-duplicates, as a new photo will be. Points
    are made a block at a time: those of all photos would be as large as the features.

    Args:
        features: (n, d).
        texture: (n, t).
        groups: content key of each photo's group, n.
        coverage: share of photos like these that are to pass.
        unseen: the photos from this place on set the threshold: those that the network was not
            trained on. A frozen network was trained on none.
        workers: see `cpu.cores`.

    """
    mean = texture.mean(axis=0)
    scale = 1 / np.maximum(texture.std(axis=0), 1e-6) / np.sqrt(texture.shape[1])

    def points(places: slice | Sequence[int]) -> Vectors:
        shown = features[places]
        norms = np.maximum(np.linalg.norm(shown, axis=1, keepdims=True), 1e-12)
        textured = (texture[places] - mean) * scale
        return np.concatenate([FEATURES_WEIGHT * shown / norms, textured], axis=1, dtype=np.float32)

    n = len(features)
    order = sorted(range(n), key=lambda i: (hash_fraction(groups[i]), i))[:REFERENCES]
    _, group = np.unique(groups, return_inverse=True)
    reference, reference_groups = points(order), group[order]
    k = min(K, len(order) - 1) or 1
    squares = (reference**2).sum(axis=1)

    def judged(start: int) -> Vectors:
        block = slice(start, start + BLOCK)
        new = points(block)
        squared = squares - 2 * new @ reference.T + (new**2).sum(axis=1)[:, None]
        farthest = squared.max(axis=1)  # for a photo of whose group nearly all the reference is
        squared[reference_groups == group[block, None]] = np.inf
        kth = np.partition(squared, k - 1, axis=1)[:, k - 1]
        return np.sqrt(np.maximum(np.where(np.isfinite(kth), kth, farthest), 0))

    starts = range(unseen, n, BLOCK)
    with threadpool_limits(1):
        blocks = parallel.ordered(
            judged, starts, Machines(workers), title="distances", unit="block"
        )
        distances = np.concatenate(list(blocks), dtype=np.float64)
    threshold = min(conformal.quantile(distances, coverage), float(distances.max()))
    return Neighbours(reference, mean, scale, k, threshold, distances)
