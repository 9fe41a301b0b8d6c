import numpy as np
import pytest
from scipy.stats import ks_2samp

from meadow.inference.reference import Reference
from meadow.inference.signals import SIGNALS
from meadow.serving.drift_window import CHANCE, STEP, WINDOW, DriftWindow, relative_distance


def test_one_is_where_chance_ends() -> None:
    """The distance is SciPy's, and at 1 its asymptotic p-value is `CHANCE`."""
    random = np.random.default_rng(0)
    known, new = np.sort(random.normal(size=900)), np.sort(random.normal(0.5, size=WINDOW).round(1))
    scaled = relative_distance(known, new)
    effective = 900 * WINDOW / (900 + WINDOW)
    at_one = ks_2samp(known, new).statistic / scaled

    assert 2 * np.exp(-2 * effective * at_one**2) == pytest.approx(CHANCE)
    assert relative_distance(known, known) == 0


def test_it_looks_at_the_last_answers_alone() -> None:
    """A change shows within the window, and is forgotten when it has passed."""
    random = np.random.default_rng(0)
    signals = {name: random.normal(size=300) for name in SIGNALS}
    shown: dict[str, list[float]] = {name: [] for name in SIGNALS}
    window = DriftWindow(
        Reference(signals, np.zeros(300, int), np.zeros(300, int)),
        lambda name, value: shown[name].append(value),
    )
    for shift in (0, 2, 0):
        for _ in range(2 * WINDOW):
            values = dict(zip(SIGNALS, random.normal(size=len(SIGNALS)), strict=True))
            window.add({**values, "brightness": values["brightness"] + shift})
    looks = 2 * WINDOW // STEP

    assert len(shown["brightness"]) == 3 * looks
    assert max(shown["brightness"][looks + 3 : 2 * looks]) > 1
    assert max(shown["brightness"][:looks] + shown["brightness"][-looks // 2 :]) < 1
    assert max(shown["contrast"]) < 1
