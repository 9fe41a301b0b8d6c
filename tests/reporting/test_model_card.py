"""The model card: it goes with the model, and tells no more than evaluate found."""

import json
import re
from pathlib import Path

import pytest

from meadow.report import report
from meadow.reporting import model_card

CARD = Path("reports/model-card.md")


def test_it_tells_the_figures_and_whose_they_are(in_built: Path) -> None:
    """The hash names the very file that was judged."""
    figures = json.loads(Path("metrics/evaluate.json").read_text())
    about = json.loads(Path("models/classifier/model.json").read_text())
    words = CARD.read_text()

    assert f"{figures['accuracy']:.1%}" in words
    assert f"{figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%}" in words
    assert about["sha256"] in words
    assert all(name in words for name in about["classes"])


def test_the_same_findings_give_the_same_card(in_built: Path) -> None:
    """No time, no path of the machine."""
    before = CARD.read_bytes()
    report()

    assert before == CARD.read_bytes()
    assert str(Path.cwd()).encode() not in before


@pytest.mark.parametrize("name", ["a|b", "<script>", "[x](y)", "*", "# a", "`a`", "&lt;", "~~a~~"])
def test_no_name_of_a_class_is_taken_for_markdown(name: str) -> None:
    """A folder may have any name: the card shows it as it is."""
    words = model_card._safe(name)

    assert isinstance(words, str)
    assert not re.search(r"(?<!\\)[`*\[\]<>#|&~]", words)
    assert words.replace("\\", "") == name
