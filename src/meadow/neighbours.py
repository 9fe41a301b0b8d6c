"""Photos of something else: how far a photo is from the nearest ones that were learned from.

Distance to the k-th nearest neighbour among L2-normalised features (Sun 2022, arXiv 2204.06507).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from meadow.splits import position

K = 5
MOST = 2000  # photos to compare with: 14 MB in the served graph at 1,760 features
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """What a new photo is compared with.

    Attributes:
        reference: normalised features of photos that were learned from, (m, d).
        k: which neighbour counts, from 1.
        threshold: the cosine distance to it up to which a photo is like those.

    """

    reference: Floats
    k: int
    threshold: float


def fit(features: Floats, groups: Sequence[str], coverage: float) -> Neighbours:
    """Choose the reference, and the threshold that the share `coverage` of its photos passes.

    Each photo is judged without its own group of near-duplicates, as a new photo will be.

    Args:
        features: (n, d).
        groups: content key of each photo's group, n.
        coverage: share of photos like these that are to pass.

    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    order = sorted(range(len(unit)), key=lambda i: (position(groups[i], 0), i))[:MOST]
    reference, of = unit[order], np.array(groups)[order]
    k = min(K, len(order) - 1) or 1
    with threadpool_limits(1):
        found = [
            _distance(row, reference[of != group], k)
            for row, group in zip(unit, groups, strict=True)
        ]
    return Neighbours(reference, k, float(np.quantile(found, coverage, method="higher")))


def _distance(row: Floats, reference: Floats, k: int) -> float:
    if len(reference) < k:
        return 2.0
    return float(1 - np.partition(reference @ row, -k)[-k])
