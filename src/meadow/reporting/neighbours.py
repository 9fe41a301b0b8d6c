"""Which photos a network takes for alike, for pages of commands: from the cache alone.

Nothing is computed here. Where the cache has no features, the pages do without.
"""

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.inference import classifier
from meadow.pipeline import manifest
from meadow.pipeline.manifest import Row
from meadow.training import feature_table

MOST = 10_000  # photos of which all pairs are compared: 4 s with 1,280 numbers each
BLOCK = 1000  # photos at once


@dataclass(frozen=True)
class Neighbours:
    """Train and val photos, and what a frozen network makes of them.

    Attributes:
        rows: n photos.
        unit: their features, each of length 1, (n, d).

    """

    rows: list[Row]
    unit: NDArray[np.float32]

    @classmethod
    def known(cls) -> "Neighbours | None":
        """Read what the cache has of the network in models/classifier; None where it has nothing.

        Raises:
            MeadowError: the cache is damaged.

        """
        try:
            about = json.loads((classifier.FOLDER / "model.json").read_text("utf-8"))
            rows = [row for row in manifest.load().rows if row.split != "test"]
        except (OSError, MeadowError):
            return None
        file = feature_table.path(about.get("backbone", ""))
        if not file.exists():
            return None
        with feature_table.opened(file) as table:
            known = feature_table.known(table)
            rows = [row for row in rows if row.pixels_sha256 in known]
            if not rows:
                return None
            vectors, _ = feature_table.read(table, [row.pixels_sha256 for row in rows])
        return cls(rows, unit(vectors))

    def nearest(self, sha256: str, count: int) -> list[tuple[float, Row]]:
        """Return the photos that are nearest to one of them, which it has no near-duplicate in.

        Args:
            sha256: of the photo's file.
            count: how many.

        Returns:
            Cosine distance, 0 to 2, and photo; nothing where the photo is not known.

        """
        at = next((i for i, row in enumerate(self.rows) if row.sha256 == sha256), None)
        if at is None:
            return []
        distance = np.maximum(1 - self.unit @ self.unit[at], 0)
        order = np.argsort(distance, kind="stable")
        others = [i for i in order if self.rows[i].group != self.rows[at].group]
        return [(float(distance[i]), self.rows[i]) for i in others[:count]]

    def pairs(self, count: int) -> list[tuple[float, Row, Row]]:
        """Return the pairs that are nearest and no near-duplicates, each photo in one of them.

        Of more than `MOST` photos there are none: that would take too long.
        """
        if len(self.rows) > MOST:
            return []
        _, group = np.unique([row.group for row in self.rows], return_inverse=True)
        least, which = np.empty(len(group)), np.empty(len(group), np.int64)
        for start in range(0, len(group), BLOCK):
            block = slice(start, start + BLOCK)
            distance = np.maximum(1 - self.unit[block] @ self.unit.T, 0)
            distance[group[block, None] == group] = np.inf
            which[block] = distance.argmin(axis=1)
            least[block] = distance.min(axis=1)
        chosen: list[tuple[float, Row, Row]] = []
        seen = set[int]()
        for i in np.argsort(least, kind="stable").tolist():
            pair = {i, int(which[i])}
            if len(chosen) < count and np.isfinite(least[i]) and not pair & seen:
                seen |= pair
                chosen.append((float(least[i]), self.rows[min(pair)], self.rows[max(pair)]))
        return chosen


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors, (n, d), at length 1."""
    scaled: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled
