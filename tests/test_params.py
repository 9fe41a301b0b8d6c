import re
from pathlib import Path
from typing import Any

import pytest
from toys import SetParams

from meadow import params
from meadow.errors import MeadowError

NAN, INFINITE = float("nan"), float("inf")


def nested(key: str, value: object) -> dict[str, Any]:
    """Return a value by the names of its sections."""
    section, _, rest = key.partition(".")
    return {section: nested(rest, value) if rest else value}


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("data.dir", "", "at least 1 character"),
        ("prepare.size", "224", "a valid integer"),
        ("prepare.size", 224.5, "a valid integer"),
        ("prepare.size", True, "a valid integer"),
        ("prepare.size", 8, "greater than or equal to 32"),
        ("prepare.resize", "stretch", "'squash' or 'crop'"),
        ("prepare.test", 1.5, "less than 1"),
        ("prepare.near_duplicates", "yes", "a valid boolean"),
        ("prepare.on_bad_photo", "ignore", "'skip' or 'fail'"),
        ("train.method", "magic", "'probe' or 'finetune'"),
        ("train.seed", -1, "greater than or equal to 0"),
        ("train.coverage", 0.5, "greater than 0.5"),
        ("train.probe.l2", "none", "'auto', or a valid number"),
        ("train.probe.l2", -1.0, "'auto', or greater than or equal to 0"),
        ("train.probe.l2", NAN, "'auto', or a finite number"),
        ("train.probe.l2", INFINITE, "'auto', or a finite number"),
        ("train.finetune.lr", 0, "greater than 0"),
        ("train.finetune.lr", "fast", "a valid number"),
        ("train.finetune.lr", INFINITE, "a finite number"),
        ("train.finetune.weight_decay", NAN, "a finite number"),
        ("train.finetune.epochs", 0, "greater than or equal to 1"),
        ("train.finetune.batch_size", 20, "a multiple of 16"),
        ("train.finetune.augment", 2.0, "less than or equal to 1"),
        ("evaluate.min_accuracy", 95, "less than or equal to 1"),
        ("evaluate.max_log_loss", INFINITE, "a finite number"),
        ("runtime.workers", -1, "greater than or equal to 0"),
    ],
)
def test_an_impossible_value_is_refused(
    set_params: SetParams, key: str, value: object, allowed: str
) -> None:
    """The error names the key, the bad value, what is allowed, and what to run."""
    set_params(**nested(key, value))

    with pytest.raises(MeadowError) as caught:
        params.load()

    message = str(caught.value)
    assert message.startswith(f"params.yaml: {key}: {value!r} is refused; allowed: ")
    assert allowed in message
    assert message.endswith("`git diff params.yaml` shows what changed.")


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("train.finetune.epoch", "train.finetune.epochs"),
        ("train.epochs", "train.finetune.epochs"),  # as it was once called
        ("evaluate.coverage", "train.coverage"),
        ("prepare.sead", "prepare.seed"),
        ("train.sead", "train.seed"),
    ],
)
def test_an_unknown_key_is_refused_with_the_valid_ones(
    set_params: SetParams, key: str, meant: str
) -> None:
    """A key that is silently ignored is an experiment that never happened."""
    set_params(**nested(key, 3))

    with pytest.raises(MeadowError, match=re.escape(f"Did you mean {meant}?")) as caught:
        params.load()

    assert f"{key} is not a parameter" in str(caught.value)
    assert f"Known: {key.rpartition('.')[0]}." in str(caught.value)


def test_a_misspelt_section_is_refused(project: Path) -> None:
    """Its keys would be ignored."""
    with params.PARAMS.open("a") as file:
        file.write("trian: {seed: 3}\n")

    with pytest.raises(MeadowError, match="Did you mean train"):
        params.load()


def test_every_mistake_is_named_at_once(set_params: SetParams) -> None:
    """So that a file is corrected in one round."""
    set_params(prepare={"size": 8}, train={"finetune": {"lr": 0}})

    with pytest.raises(MeadowError, match=r"prepare\.size: 8(.|\n)*train\.finetune\.lr: 0"):
        params.load()


@pytest.mark.parametrize("name", ["  method", "    epochs", "evaluate"])
def test_a_missing_key_or_section_is_named(project: Path, name: str) -> None:
    """There are no hidden defaults: what is used stands in the file."""
    text = Path("params.yaml").read_text()
    rest = r"(\n  .*)*" if name == "evaluate" else ""
    Path("params.yaml").write_text(re.sub(rf"^{name}:.*{rest}\n", "", text, flags=re.MULTILINE))

    with pytest.raises(MeadowError, match=rf"{name.strip()} is missing\. `git diff"):
        params.load()


@pytest.mark.parametrize("text", ["", "# nothing\n", "train\n", "- train\n"], ids=repr)
def test_a_file_without_sections_is_refused(project: Path, text: str) -> None:
    """An interrupted editor leaves an empty file."""
    Path("params.yaml").write_text(text)

    with pytest.raises(MeadowError, match=r"has no sections.*git checkout params\.yaml"):
        params.load()


def test_a_section_that_is_no_section_is_refused(set_params: SetParams, project: Path) -> None:
    """`train:` with its keys out of place."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r"runtime:(.|\n)*", "runtime: 3\n", text))

    with pytest.raises(MeadowError, match="runtime: 3 is refused"):
        params.load()


def test_an_exponent_is_a_number(project: Path) -> None:
    """PyYAML reads 1e-3 as a string, DVC as a number; so does Meadow."""
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(re.sub(r" lr: \S+", " lr: 1e-3", text))

    assert params.load().train.finetune.lr == 0.001


def test_outside_of_a_project_the_error_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most common mistake is to stand in the wrong folder."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(MeadowError, match="Run this from the folder of the project"):
        params.load()


def test_broken_yaml_is_refused(project: Path) -> None:
    """With the line where it breaks."""
    Path("params.yaml").write_text("train: {epochs: 3\nprepare: x")

    with pytest.raises(MeadowError, match="line"):
        params.load()
