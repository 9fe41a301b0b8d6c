from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from meadow.evaluation import gate
from meadow.params import Evaluate
from meadow.pipeline.manifest import Row

LIMITS = Evaluate(min_accuracy=0.8, max_log_loss=0.5, min_answered_accuracy=0.8)
FIGURES = {
    "accuracy_low": 0.85,
    "accuracy_high": 0.95,
    "log_loss": 0.3,
    "answered_share": 0.9,
    "answered_accuracy_low": 0.9,
    "answered_accuracy_high": 0.99,
}
TARGETS = np.zeros(80, np.int64)


def rows(n: int = 80) -> list[Row]:
    return [Row(f"{i}", "a", "test", f"g{i}", f"sha {i}", "", 1, 1, 1) for i in range(n)]


def answers(p: float, n: int = 80) -> np.ndarray:
    noise = np.random.default_rng(int(100 * p)).uniform(-0.05, 0.05, n)
    return np.stack([p + noise, 1 - p - noise], axis=1)


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a released model that gives the true class 0.8."""
    monkeypatch.chdir(tmp_path)
    gate.RELEASED.parent.mkdir()
    losses = -np.log(answers(0.8)[:, 0])
    lines = [f"{row.sha256},a,{loss}" for row, loss in zip(rows(), losses, strict=True)]
    gate.RELEASED.write_text("\n".join(["sha256,label,log_loss", *lines]) + "\n")


@pytest.mark.parametrize(("p", "passes"), [(0.9, True), (0.79, True), (0.6, False)])
@pytest.mark.usefixtures("released")
def test_a_model_that_is_significantly_worse_than_the_released_one_fails(
    p: float, passes: bool
) -> None:
    """On the same photos, by a paired bootstrap; a chance difference is none."""
    verdict = gate.verdict(FIGURES, rows(), answers(p), TARGETS, LIMITS)

    assert verdict["passed"] is passes
    assert verdict["why"][2].startswith("passed" if passes else "failed")
    assert "on 80 photos that both were tested on" in verdict["why"][2]


@pytest.mark.usefixtures("released")
def test_the_released_model_itself_passes() -> None:
    """Though its losses were rounded downwards, and each now seems a little higher."""
    text = gate.RELEASED.read_text().splitlines()
    lower = [
        f"{sha},{label},{float(loss) - 1e-6}"
        for sha, label, loss in (line.split(",") for line in text[1:])
    ]
    gate.RELEASED.write_text("\n".join([text[0], *lower]) + "\n")
    verdict = gate.verdict(FIGURES, rows(), answers(0.8), TARGETS, LIMITS)

    assert verdict["passed"] is True
    assert "the log-loss differs by +0.000 (+0.000 to +0.000)" in verdict["why"][2]


@pytest.mark.usefixtures("released")
def test_only_photos_that_both_saw_are_compared() -> None:
    """A new version of the set has new test photos."""
    new = [Row(f"n{i}", "a", "test", f"n{i}", f"new {i}", "", 1, 1, 1) for i in range(40)]
    verdict = gate.verdict(FIGURES, rows(40) + new, answers(0.6), TARGETS, LIMITS)

    assert "on 40 photos" in verdict["why"][2]


@pytest.mark.usefixtures("released")
def test_a_corrected_label_is_not_held_against_a_model() -> None:
    """Nor for it: losses by two labels would hide here that it is worse on the other photos."""
    corrected = [replace(row, label="b") if i < 40 else row for i, row in enumerate(rows())]
    targets = np.repeat([1, 0], 40)
    probabilities = np.where(np.arange(80)[:, None] < 40, answers(0.95)[:, ::-1], answers(0.6))
    verdict = gate.verdict(FIGURES, corrected, probabilities, targets, LIMITS)

    assert verdict["passed"] is False
    assert "on 40 photos that both were tested on with the same label" in verdict["why"][2]


@pytest.mark.parametrize(("kept", "passes"), [(0, False), (15, False), (16, True)])
@pytest.mark.usefixtures("released")
def test_too_few_photos_in_common_do_not_pass(kept: int, passes: bool) -> None:
    """With the number there is, the number needed, and how to release it all the same."""
    new = [replace(row, sha256=f"new {row.path}") for row in rows(80)[kept:]]
    verdict = gate.verdict(FIGURES, rows(kept) + new, answers(0.8), TARGETS, LIMITS)

    assert verdict["passed"] is passes
    assert passes or f"tested on only {kept} photos" in verdict["why"][2]
    assert passes or "needs 16" in verdict["why"][2]

    gate.RELEASED.write_text(gate.RELEASED.read_text().splitlines()[0] + "\n")
    assert gate.verdict(FIGURES, new, answers(0.8)[kept:], TARGETS[kept:], LIMITS)["passed"]


@pytest.mark.usefixtures("released")
def test_a_released_file_without_labels_does_not_pass() -> None:
    """Meadow 0.1 kept none: whether labels were corrected since, nobody knows."""
    lines = (line.split(",") for line in gate.RELEASED.read_text().splitlines())
    gate.RELEASED.write_text("".join(f"{sha},{loss}\n" for sha, _, loss in lines))
    verdict = gate.verdict(FIGURES, rows(), answers(0.9), TARGETS, LIMITS)

    assert verdict["passed"] is False
    assert "tested on only 0 photos" in verdict["why"][2]


@pytest.mark.parametrize(
    ("figures", "failed"),
    [
        ({"accuracy_low": 0.79}, "min_accuracy 0.8"),
        ({"log_loss": 0.51}, "max_log_loss is 0.5"),
        ({"answered_accuracy_low": 0.79}, "min_answered_accuracy 0.8"),
        (
            {"answered_share": 0.0, "answered_accuracy_low": 0.0},
            "0.0% of the test photos are answered",
        ),
    ],
)
def test_each_limit_fails_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: dict[str, float], failed: str
) -> None:
    """The figure, and the parameter that it is held against."""
    monkeypatch.chdir(tmp_path)
    verdict = gate.verdict(FIGURES | figures, rows(), answers(0.9), TARGETS, LIMITS)
    (why,) = [why for why in verdict["why"] if why.startswith("failed")]

    assert verdict["passed"] is False
    assert failed in why
