"""The 400 web photos, where they are at hand."""

import json
from pathlib import Path

import pytest
from tools import PHOTOS
from toys import SetParams

from meadow.commands import dandelion_grass
from meadow.evaluate import evaluate
from meadow.experiments.recipes import read
from meadow.prepare import prepare
from meadow.train import train

pytestmark = [pytest.mark.slow, pytest.mark.needs("photos")]


def test_the_probe_recipe_on_the_real_set(project: Path, set_params: SetParams) -> None:
    """At least as good as the best published (96 %), by cross-validation; no photo is bad."""
    dandelion_grass.fetch(Path("data/raw"), PHOTOS)
    set_params(**read("probe"))
    prepare()
    train()
    evaluate()
    figures = json.loads(Path("metrics/evaluate.json").read_text())
    counts = json.loads(Path("metrics/prepare.json").read_text())

    assert (counts["kept"], counts["near_duplicates"]) == (400, 0)
    assert figures["cv_accuracy"] >= 0.96
    assert figures["cv_log_loss"] <= 0.12
