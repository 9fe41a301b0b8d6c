"""A training method states what it has; nothing else knows the methods by their names."""

import re
from pathlib import Path
from typing import get_args

from meadow.experiments import recipes
from meadow.params import Train
from meadow.training.methods import METHODS

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
