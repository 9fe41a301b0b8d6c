"""What a range is, and which keys and values may be swept."""

import re
from pathlib import Path

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from meadow.errors import MeadowError
from meadow.experiments import search_space
from meadow.experiments.search_space import parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.003..3:log", FloatDistribution(0.003, 3, log=True)),
        ("1e-3..1e-1", FloatDistribution(1e-3, 1e-1)),
        ("3..9", IntDistribution(3, 9)),
        ("1..64:log", IntDistribution(1, 64, log=True)),
        ("resnet18,mobilenet_v2", CategoricalDistribution(["resnet18", "mobilenet_v2"])),
        ("auto,1e-3,2,true,no", CategoricalDistribution(["auto", 1e-3, 2, True, "no"])),
    ],
)
def test_a_range_is_read_as_yaml_1_2(text: str, expected: BaseDistribution) -> None:
    """`1e-3` is a number, `no` is a word, and integers are those that are written so."""
    assert parse("train.key", text) == expected


@pytest.mark.parametrize("text", ["3..1", "0..1:log", "a..b", "1,,2", "", "1,2:log", "[1,2"])
def test_what_is_no_range_is_refused_with_the_forms(text: str) -> None:
    """Before the first trial."""
    with pytest.raises(MeadowError, match=r"LOW\.\.HIGH"):
        parse("train.key", text)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("train.probe.l22", "1..2", "Did you mean train.probe.l2"),
        ("lr", "1..2", "Known: "),
        ("train.finetune.epochs", "0..3", "train.finetune.epochs: 0 is refused"),
        ("train.finetune.batch_size", "16..64", "multiple of 16"),
        ("train.method", "probe,forest", "'forest' is refused"),
        ("prepare.test", "0.1..0.3", "cannot be compared"),
        ("evaluate.min_accuracy", "0.5..0.9", "cannot be compared"),
        ("train.coverage", "0.9..0.95", "cannot be compared"),
        ("train.l2", "1..2", "Did you mean train.probe.l2"),
        ("train.seed.x", "1..2", "not a parameter"),
    ],
)
def test_a_key_or_value_that_a_stage_would_refuse(
    project: Path, key: str, text: str, message: str
) -> None:
    """Is refused at once, not by 50 failed trials; and so is what would move the goal."""
    with pytest.raises(MeadowError, match=re.escape(message)):
        search_space.read([f"{key}={text}"], None)


def test_ranges_in_a_file_are_those_of_the_command_line(project: Path) -> None:
    """`key: range`, one a line; the command line wins; a form that is not this one is named."""
    file = project / "sweep.yaml"
    file.write_text("train.probe.l2: 0.003..3:log\ntrain.seed: 3\n")

    assert search_space.read(["train.seed=1..2"], file) == {
        "train.probe.l2": FloatDistribution(0.003, 3, log=True),
        "train.seed": IntDistribution(1, 2),
    }
    file.write_text("train: {probe: {l2: 3}}\n")
    with pytest.raises(MeadowError, match="one range a line"):
        search_space.read([], file)


def test_an_argument_without_a_range_is_named() -> None:
    """With the forms that there are."""
    for arguments in (["train.seed"], []):
        with pytest.raises(MeadowError, match=r"no range.*LOW\.\.HIGH"):
            search_space.read(arguments, None)
