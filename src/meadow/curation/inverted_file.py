"""Vectors in lists around centres, so that a query is compared with a few of them.

An inverted file as of Jegou et al. (2011, doi:10.1109/TPAMI.2010.57), without their codes. Vectors
hold integers and have the norm `UNIT`, so that all products are exact in float32: neither the BLAS
library, its threads nor the number of queries asked at once can change a result.
"""

from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

UNIT = 4000  # no sum exceeds 2**24
ROUNDS, LEARNED_FROM = 5, 30  # of k-means, which finds the centres; vectors for each centre
PART = 1024  # vectors that are multiplied at once
PROBED = 256  # lists that a query is compared with, in all its views
SEEN = 8192  # scores of a query, which tell how high the best are
Vectors = NDArray[np.float32]
Places = NDArray[np.intp]


def norm(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the norms along the last axis."""
    squares: NDArray[np.float64] = np.einsum("...k,...k->...", table, table)
    return np.sqrt(squares)


def unit(table: NDArray[np.float64]) -> Vectors:
    """Return vectors, along the last axis, as integers of norm UNIT."""
    return np.rint(table * (UNIT / np.maximum(norm(table), 1))[..., None]).astype(np.float32)


class InvertedFile:
    """Vectors to be searched.

    Args:
        vectors: (n, d), at least one, as of `unit`; int16 holds them too.
        views: see `search`.
        pool: runs parts of the work.

    """

    def __init__(self, vectors: Vectors | NDArray[np.int16], views: int, pool: Executor) -> None:
        n = len(vectors)
        # as many centres as vectors that a view is compared with: the least work
        count = max(1, round((n * PROBED / views) ** 0.5))
        sample = vectors[_evenly(n, LEARNED_FROM * count)].astype(np.float32)
        self._centres = sample[_evenly(len(sample), count)]

        def nearest(vectors: Vectors | NDArray[np.int16]) -> Places:
            def of_part(i: int) -> Places:
                part = vectors[i : i + PART].astype(np.float32)
                places: Places = (part @ self._centres.T).argmax(axis=1)
                return places

            return np.concatenate([*pool.map(of_part, range(0, len(vectors), PART))])

        for _ in range(ROUNDS):
            lists = nearest(sample)
            order = np.argsort(lists, kind="stable")
            used, starts = np.unique(lists[order], return_index=True)
            self._centres[used] = unit(np.add.reduceat(sample[order], starts, dtype=np.float64))
        lists = nearest(vectors)
        self._order = np.argsort(lists, kind="stable")
        self._vectors = vectors[self._order].astype(np.float32)
        self._starts = np.searchsorted(lists[self._order], np.arange(len(self._centres) + 1))

    def search(self, queries: Vectors, least: float) -> tuple[Places, Places]:
        """Find the vectors that correlate with a view of something, but for a few that are missed.

        Args:
            queries: (m, views, d), as of `unit`.
            least: correlation.

        Returns:
            Places of queries, (k,), and for each the place of a vector, (k,).

        """
        m, views, _ = queries.shape
        step = max(1, PART // views)
        near = [self._lists(queries[i : i + step], i) for i in range(0, m, step)]
        view, place = np.concatenate(near, axis=1)
        order = np.argsort(place, kind="stable")
        view, ends = view[order], np.searchsorted(place[order], np.arange(len(self._starts)))
        flat = queries.reshape(m * views, -1)
        hits = [np.empty((2, 0), np.intp)]
        for i in np.flatnonzero(np.diff(ends)):
            asked = view[ends[i] : ends[i + 1]]
            listed = slice(self._starts[i], self._starts[i + 1])
            scores = flat[asked] @ self._vectors[listed].T
            if (hit := np.flatnonzero(scores >= least * UNIT**2)).size:  # faster than nonzero
                row, column = np.divmod(hit, scores.shape[1])
                hits.append(np.stack([asked[row] // views, self._order[listed][column]]))
        query, vector = np.concatenate(hits, axis=1)
        return query, vector

    def _lists(self, queries: Vectors, first: int) -> NDArray[np.intp]:
        """Return (2, k): places among all views, of queries from `first` on, and lists for them."""
        m, views, d = queries.shape
        scores = (queries.reshape(-1, d) @ self._centres.T).reshape(m, -1)
        some = scores[:, :: max(1, scores.shape[1] // SEEN)]  # to know the best of all about
        last = max(0, some.shape[1] - round(PROBED * some.shape[1] / scores.shape[1]))
        least = np.partition(some, last, axis=1)[:, last, None]
        query, place = np.divmod(np.flatnonzero(scores >= least), scores.shape[1])
        view, place = np.divmod(place, len(self._centres))
        return np.stack([(first + query) * views + view, place])


def _evenly(n: int, count: int) -> Places:
    """Return so many places of n, at even distances; all where n is smaller."""
    return np.linspace(0, n - 1, min(n, count)).astype(np.intp)
