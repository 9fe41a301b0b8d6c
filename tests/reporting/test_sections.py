"""The report: it tells what evaluate has found, to anybody, without a network."""

import json
import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from browser import DESKTOP, PHONE, Browser, invalid, too_wide, violations

from meadow.evaluate import evaluate
from meadow.evaluation import metrics
from meadow.reporting import sections

PAGE = Path("reports/report.html")


def test_the_headline_is_the_interval_in_plain_words(in_built: Path) -> None:
    """Rounded outwards: it never promises more than was measured."""
    figures = json.loads(Path("metrics/evaluate.json").read_text())
    words = re.search(r"Of 100 photos like these, (\d+) to (\d+) are", PAGE.read_text())

    assert words
    assert int(words[1]) <= 100 * figures["accuracy_low"]
    assert int(words[2]) >= 100 * figures["accuracy_high"]


def test_the_same_findings_give_the_same_bytes(in_built: Path) -> None:
    """No time, no path of the machine; and small enough to be mailed."""
    before = PAGE.read_bytes()
    evaluate()

    assert before == PAGE.read_bytes()
    assert str(Path.cwd()).encode() not in before
    assert len(before) < 5 * 2**20


def test_of_many_points_the_ends_are_kept() -> None:
    """A curve of 40,000 photos is drawn with a few hundred points, from end to end."""
    points = list(range(40_000))
    kept = sections._thinned(points)

    assert len(kept) == sections.POINTS
    assert (kept[0], kept[-1]) == (0, 39_999)


def test_abstention_is_judged_on_the_surest() -> None:
    """Sure and right, unsure and wrong: half answered is all right, all answered is half."""
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.6, 0.4]] * 10)
    points = metrics.abstention(probabilities, np.array([0] * 10 + [1] * 10))
    accuracy = {round(each["answered"], 2): each["accuracy"] for each in points}

    assert accuracy[0.5] == 1.0
    assert accuracy[1.0] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_the_page_is_valid_accessible_and_whole(
    in_built: Path, browser: Browser, size: tuple[int, int], scheme: Literal["light", "dark"]
) -> None:
    """HTML that validates, nothing from elsewhere, no console message, no fault that axe finds."""
    assert invalid(PAGE) == []
    with browser.visit(PAGE, size=size, scheme=scheme) as seen:
        assert violations(seen) == []
        assert not too_wide(seen)
