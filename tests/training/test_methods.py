"""A training method states what it has; nothing else knows the methods by their names."""

import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from toys import SetParams

from meadow import params
from meadow.experiments import recipes
from meadow.params import Train
from meadow.pipeline import manifest
from meadow.prepare import prepare
from meadow.training import finetune, out_of_distribution
from meadow.training.methods import METHODS
from meadow.training.weights import Weights

SOURCE = Path(__file__).parents[2] / "src/meadow"


def test_every_method_has_a_name_a_section_and_a_recipe() -> None:
    """In params.py each once; a recipe makes a method known to those who read the README."""
    known = set(METHODS)

    assert known == set(get_args(Train.model_fields["method"].annotation))
    assert known <= set(Train.model_fields)
    assert known == {recipes.read(name)["train"]["method"] for name in recipes.names()}


def test_no_other_module_asks_for_a_method_by_its_name() -> None:
    """Else a new method would have to be added there too."""
    names = "|".join(METHODS)
    question = re.compile(rf"""[!=]= *["']({names})["']""")
    asking = [path for path in SOURCE.rglob("*.py") if question.search(path.read_text("utf-8"))]

    assert asking == []


def test_photos_set_no_threshold_by_what_they_chose_or_were_trained_on(
    toy_set: Path, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two epochs the served one knows nothing; the other folds always choose the other one."""
    set_params(train={"coverage": 0.75})  # 7 val photos say nothing of 0.95
    prepare()
    ready, chosen = manifest.load(), params.load()
    p = chosen.train
    targets = ready.photos("val").targets
    knowing = 9 * np.eye(2, dtype=np.float32)[targets]
    unseen = []
    fit = out_of_distribution.fit

    def fitted(*inputs: Any, **options: Any) -> out_of_distribution.Neighbours:
        unseen.append(options["unseen"])
        return fit(*inputs, **options)

    monkeypatch.setattr(out_of_distribution, "fit", fitted)
    monkeypatch.setattr(
        finetune, "finetune", lambda *_, **__: (0, {}, np.stack([0 * knowing, knowing]))
    )
    weights = Weights.of("none", p.arch)
    trained = METHODS["finetune"].fit(p, ready, weights, chosen.runtime, lambda _: None)

    assert trained.set_threshold < 0.4  # by the served epoch: 0.5
    assert unseen == [len(ready.split("train"))]
