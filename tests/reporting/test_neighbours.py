"""Neighbours by features on the pages about labels and photos: from the cache, or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest

from meadow.commands import review_page
from meadow.evaluation import label_issues
from meadow.inference import classifier
from meadow.pipeline import manifest
from meadow.prepare import prepare
from meadow.reporting import neighbours
from meadow.reporting.dataset_report import data_report
from meadow.reporting.neighbours import Neighbours
from meadow.training import feature_table

NETWORK = "0" * 64
PAGE = Path("page.html")


@pytest.fixture
def learned(toy_set: Path) -> list[manifest.Row]:
    """Return train and val photos, whose labels a model doubts in this order."""
    prepare()
    ready = manifest.load()
    rows = [row for row in ready.rows if row.split != "test"]
    classifier.FOLDER.mkdir(parents=True)
    (classifier.FOLDER / "model.json").write_text(json.dumps({"backbone": NETWORK}))
    Path("reports").mkdir()
    given = ready.targets(rows)
    doubt = np.linspace(0.9, 0.1, len(rows))
    probabilities = np.stack([doubt, doubt], axis=1)
    probabilities[np.arange(len(rows)), given] = 1 - doubt
    label_issues.write(rows, probabilities, ready.classes)
    return rows


def compute(rows: list[manifest.Row]) -> None:
    """Have the cache know photos, each nearest to the next one."""
    with feature_table.opened(feature_table.path(NETWORK)) as table, table:
        for i, row in enumerate(rows):
            vector = np.array([np.cos(0.01 * i**2), np.sin(0.01 * i**2)], np.float32)
            feature_table.add(table, row.pixels_sha256, vector.tobytes(), vector.tobytes())


def test_pages_show_what_the_cache_knows_and_compute_nothing(learned: list[manifest.Row]) -> None:
    """Without features a doubtful photo is alone, and no pair is shown."""
    review_page.write(PAGE)
    alone = PAGE.read_text()
    data_report(PAGE)
    assert "Alike to the network" not in PAGE.read_text()
    assert Neighbours.known() is None
    compute(learned)
    review_page.write(PAGE)
    beside = PAGE.read_text()
    data_report(PAGE)

    assert f"<h2>{learned[0].path}" in alone
    assert alone.count("<img") == review_page.SHOWN
    assert beside.count("<img") == review_page.SHOWN * (1 + review_page.NEIGHBOURS)
    assert "Alike to the network" in PAGE.read_text()


def test_near_duplicates_and_the_photo_itself_are_no_neighbours(
    learned: list[manifest.Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a photo come in two pairs, nor are there pairs of very many photos."""
    compute(learned)
    known = Neighbours.known()
    assert known is not None
    first, second, third = known.rows[:3]
    object.__setattr__(second, "group", first.group)

    assert [row for _, row in known.nearest(first.sha256, 2)] == known.rows[2:4]
    assert known.nearest("another", 2) == []
    (distance, *pair), *_ = pairs = known.pairs(3)
    assert pair == [second, third]
    assert distance == pytest.approx(1 - np.cos(0.03), abs=1e-6)
    assert len({row.path for _, *both in pairs for row in both}) == 6
    monkeypatch.setattr(neighbours, "MOST", 3)
    assert known.pairs(3) == []
