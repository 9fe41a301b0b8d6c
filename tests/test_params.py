import re
from pathlib import Path

import pytest
from toys import SetParams

from meadow import params
from meadow.errors import MeadowError

TYPES = {"prepare": params.Prepare, "train": params.Train, "evaluate": params.Evaluate}


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("prepare", "size", "224"),
        ("prepare", "size", 224.5),
        ("prepare", "size", True),
        ("prepare", "size", 8),
        ("prepare", "resize", "stretch"),
        ("prepare", "test", 1.5),
        ("prepare", "near_duplicates", "yes"),
        ("prepare", "on_bad_photo", "ignore"),
        ("train", "method", "magic"),
        ("train", "lr", 0),
        ("train", "lr", "fast"),
        ("train", "epochs", 0),
        ("train", "batch_size", 20),
        ("train", "seed", -1),
        ("train", "l2", "none"),
        ("train", "augment", 2.0),
        ("evaluate", "folds", 1),
        ("evaluate", "min_accuracy", 95),
    ],
)
def test_an_impossible_value_is_refused(
    set_params: SetParams, section: str, key: str, value: object
) -> None:
    """The error names the key, the bad value, and what is allowed."""
    set_params(**{section: {key: value}})

    with pytest.raises(MeadowError, match=re.escape(f"{section}.{key}")) as caught:
        params.load(section, TYPES[section])

    assert repr(value) in str(caught.value)


def test_a_misspelt_key_is_refused_with_the_valid_ones(set_params: SetParams) -> None:
    """A key that is silently ignored is an experiment that never happened."""
    set_params(train={"epoch": 3})

    with pytest.raises(MeadowError, match=r"train\.epoch .*Did you mean train\.epochs\?") as caught:
        params.load("train", params.Train)

    assert "train.weight_decay" in str(caught.value)


def test_a_misspelt_section_is_refused(set_params: SetParams) -> None:
    """Its keys would be ignored."""
    set_params(trian={"epochs": 3})

    with pytest.raises(MeadowError, match="Did you mean train"):
        params.load("train", params.Train)


def test_a_missing_key_is_named(project: Path) -> None:
    """There are no hidden defaults: what is used stands in the file."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"  epochs:.*\n", "", text))

    with pytest.raises(MeadowError, match=r"train\.epochs is missing"):
        params.load("train", params.Train)


def test_an_exponent_is_a_number(project: Path) -> None:
    """PyYAML reads 1e-3 as a string, DVC as a number; so does Meadow."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"  lr: \S+", "  lr: 1e-3", text))

    assert params.load("train", params.Train).lr == 0.001


def test_outside_of_a_project_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most common mistake is to stand in the wrong folder."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(MeadowError, match="Run this from the folder of the project"):
        params.load("train", params.Train)


def test_broken_yaml_is_refused(project: Path) -> None:
    """With the line where it breaks."""
    Path("params.yaml").write_text("train: {epochs: 3\nprepare: x")

    with pytest.raises(MeadowError, match="line"):
        params.load("train", params.Train)
