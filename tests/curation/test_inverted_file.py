from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from meadow.curation import inverted_file
from meadow.curation.inverted_file import UNIT, InvertedFile, Vectors, unit

VIEWS, D = 4, 64


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def drawn(seed: int, *shape: int) -> Vectors:
    return unit(1000 * np.random.default_rng(seed).normal(size=(*shape, D)))


def alike(vectors: Vectors) -> Vectors:
    """Return one query for each vector: one of its views correlates with it by about 0.8."""
    queries = drawn(1, len(vectors), VIEWS)
    view = np.arange(len(vectors)) % VIEWS
    queries[np.arange(len(vectors)), view] = unit(
        4 * vectors.astype(np.float64) + 3 * drawn(2, len(vectors))
    )
    return queries


def test_of_few_vectors_all_are_found(pool: Executor) -> None:
    """Where all lists are probed the search is exhaustive: the oracle is one product."""
    vectors, queries = drawn(0, 60), drawn(1, 50, VIEWS)
    scores = (queries.reshape(-1, D) @ vectors.T).reshape(50, VIEWS, 60).max(axis=1)

    query, vector = InvertedFile(vectors, VIEWS, pool).search(queries, 0.25)

    assert inverted_file.PROBED >= VIEWS * (60 * inverted_file.PROBED / VIEWS) ** 0.5
    assert {*zip(query.tolist(), vector.tolist(), strict=True)} == {
        (int(q), int(v)) for q, v in np.argwhere(scores >= 0.25 * UNIT**2)
    }


def test_of_many_vectors_few_are_compared_and_fewer_are_missed(pool: Executor) -> None:
    """At most a tenth of 20,000 are compared, and 1 % of those that are alike are missed."""
    vectors = drawn(0, 20_000)
    queries = alike(vectors[:2000])
    file = InvertedFile(vectors, VIEWS, pool)

    query, vector = file.search(queries, 0.6)
    view, lists = file._lists(queries[:500], 0)

    compared = np.diff(file._starts)[lists].sum()
    assert compared <= 0.1 * 500 * VIEWS * len(vectors)
    assert len(np.unique(view // VIEWS)) == 500
    assert (query == vector).sum() >= 0.99 * 2000


def test_neither_threads_nor_parts_change_what_is_found(
    pool: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All products are integers that float32 holds, in whatever order they are added."""
    vectors = drawn(0, 3000)
    queries = alike(vectors[:300])
    expected = InvertedFile(vectors, VIEWS, pool).search(queries, 0.5)

    monkeypatch.setattr(inverted_file, "PART", 77)
    with threadpool_limits(1), ThreadPoolExecutor(1) as one:
        found = InvertedFile(vectors, VIEWS, one).search(queries, 0.5)

    pairs = [
        {*zip(*(places.tolist() for places in both), strict=True)} for both in (found, expected)
    ]
    assert pairs[0] == pairs[1]
    assert (UNIT + D**0.5 / 2) ** 2 <= 2**24  # each of D values is rounded by up to 0.5


def test_what_is_not_there_is_not_found(pool: Executor) -> None:
    query, vector = InvertedFile(drawn(0, 100), VIEWS, pool).search(drawn(1, 20, VIEWS), 0.99)

    assert len(query) == len(vector) == 0
