"""Sweeps: what a range is, what may be selected on, and that no ended trial is ever lost."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from clones import attempt, copied, runner, surroundings
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from meadow.errors import MeadowError
from meadow.experiments import search_space
from meadow.experiments.objective import Objective
from meadow.experiments.search_space import parse

MEADOW = (sys.executable, "-c", "from meadow.cli import main; main()")
L2 = "train.probe.l2=0.003..3:log"


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
    ("key", "text", "said"),
    [
        ("train.probe.l22", "1..2", "Did you mean train.probe.l2"),
        ("lr", "1..2", "Known: "),
        ("train.finetune.epochs", "0..3", "train.finetune.epochs: 0 is refused"),
        ("train.finetune.batch_size", "16..64", "multiple of 16"),
        ("train.method", "probe,forest", "'forest' is refused"),
        ("prepare.test", "0.1..0.3", "cannot be compared"),
        ("evaluate.folds", "2..9", "cannot be compared"),
        ("train.coverage", "0.9..0.95", "cannot be compared"),
        ("train.l2", "1..2", "Did you mean train.probe.l2"),
        ("train.seed.x", "1..2", "not a parameter"),
    ],
)
def test_a_key_or_value_that_a_stage_would_refuse(
    project: Path, key: str, text: str, said: str
) -> None:
    """Is refused at once, not by 50 failed trials; and so is what would move the goal."""
    with pytest.raises(MeadowError, match=re.escape(said)):
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


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "brier", "ece", "auroc"])
@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_no_test_figure_is_selected_on(name: str, method: str) -> None:
    """The best of 50 on the test photos would look better than it is."""
    with pytest.raises(MeadowError, match="test photos"):
        Objective.of(name, {method})


def test_the_usual_metric_is_the_log_loss_of_the_method() -> None:
    """And figures of two methods are not compared."""
    assert Objective.of(None, {"probe"}).name == "cv_log_loss"
    assert Objective.of(None, {"finetune"}).name == "val.log_loss"
    assert Objective.of("cv_accuracy", {"probe"}).direction == "maximize"
    with pytest.raises(MeadowError, match="another method"):
        Objective.of("cv_log_loss", {"finetune"})
    with pytest.raises(MeadowError, match="at a time"):
        Objective.of(None, {"probe", "finetune"})


@pytest.fixture(scope="module")
def clone(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project whose method is probe, with one run."""
    folder = copied(first_run, tmp_path_factory.mktemp("clone"))
    run = runner(folder)
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("method: finetune ", "method: probe "))
    run("dvc", "repro", "evaluate")
    run("git", "commit", "-qam", "probe")
    return folder


def experiments(clone: Path, file: str = "metrics/evaluate.json") -> dict[str, dict[str, Any]]:
    """Return the figures of all experiments that `dvc exp show` lists."""
    shown = json.loads(runner(clone)("dvc", "exp", "show", "--json"))
    return {
        each["name"]: each["revs"][0]["data"]["metrics"][file]["data"]
        for base in shown
        for each in base.get("experiments") or []
    }


@pytest.mark.slow
def test_a_killed_sweep_loses_the_running_trials_alone(clone: Path) -> None:
    """The The same command goes on; what it made can be shown and applied; the workspace stays."""
    run = runner(clone)
    command = [*MEADOW, "sweep", L2, "--trials", "6"]
    killed = subprocess.Popen(
        command, cwd=clone, env=surroundings(clone), stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout
    lines = [killed.stdout.readline() for _ in range(3)]
    time.sleep(2)
    killed.kill()
    killed.communicate()
    kept = experiments(clone)
    resumed = run(*command)
    after = experiments(clone)

    assert [line.split("/6")[0].strip() for line in lines[1:]] == ["1", "2"]
    assert len(kept) == 2
    assert kept.items() <= after.items()
    assert len(after) == 6
    assert "6 trials, 2 of them known" in resumed
    assert "1/6" not in resumed
    assert "6/6" in resumed
    assert "3/6" in resumed
    assert run("git", "status", "--porcelain") == ""
    assert not list((clone / ".dvc/tmp/sweeps").glob("*/clone-*"))

    best = min(after, key=lambda name: after[name]["cv_log_loss"])
    assert f"dvc exp apply {best}" in resumed
    run("dvc", "exp", "apply", best)
    applied = json.loads((clone / "metrics/evaluate.json").read_text())
    assert applied["cv_log_loss"] == after[best]["cv_log_loss"]
    assert run("dvc", "status", "evaluate").strip() == "Data and pipelines are up to date."
    refused = attempt(clone, *command)
    assert refused.returncode == 1
    assert "git commit" in refused.stderr
    run("git", "reset", "-q", "--hard")
    run("dvc", "checkout", "-q", "--force")
    assert "6 of them known" in run(*command)


@pytest.mark.slow
def test_ctrl_c_ends_what_runs_and_says_how_to_go_on(clone: Path) -> None:
    """No stage goes on in the background."""
    command = [*MEADOW, "sweep", "train.probe.l2=0.01..1", "--trials", "4"]
    process = subprocess.Popen(
        command, cwd=clone, env=surroundings(clone), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    while not list((clone / ".dvc/tmp/sweeps").glob("*/clone-*/metrics")):
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "The same command goes on" in said
    assert not list((clone / ".dvc/tmp/sweeps").glob("*/clone-*"))


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_sweep_goes_on(clone: Path) -> None:
    """Values that are known are not run again, whether they failed or not."""
    before = experiments(clone)
    said = runner(clone)(*MEADOW, "sweep", "train.arch=nope,shufflenet_v2_x0_5", "--trials", "6")

    assert "s): train.arch: 'nope' is not a classification model" in said
    assert said.count("(known)") == 4
    assert len(experiments(clone)) == len(before) + 1
    none = attempt(clone, *MEADOW, "sweep", "train.arch=nope", "--trials", "2")
    assert none.returncode == 1
    assert "all trials failed" in none.stderr


@pytest.mark.slow
def test_a_sweep_over_finetune_is_judged_by_val(clone: Path) -> None:
    """By the figures of the epoch that each trial kept."""
    before = experiments(clone)
    learning = ("train.method=finetune", "train.finetune.lr=1e-5,1e-3")
    said = runner(clone)(*MEADOW, "sweep", *learning, "--trials", "2")
    trials = experiments(clone, "metrics/train/metrics.json")
    best = min(trials.keys() - before, key=lambda name: trials[name]["val"]["log_loss"])

    assert len(trials) == len(before) + 2
    assert f"dvc exp apply {best}" in said
    assert "--sort-by metrics/train/metrics.json:val.log_loss" in said
