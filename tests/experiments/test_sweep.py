"""Sweeps as a user runs them: no ended trial is ever lost."""

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

MEADOW = (sys.executable, "-c", "from meadow.cli import main; main()")
L2 = "train.probe.l2=0.003..3:log"


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
        experiment["name"]: experiment["revs"][0]["data"]["metrics"][file]["data"]
        for base in shown
        for experiment in base.get("experiments") or []
    }


@pytest.mark.slow
def test_a_killed_sweep_loses_the_running_trials_alone(clone: Path) -> None:
    """The same command goes on; what it made can be shown and applied; the workspace stays."""
    run = runner(clone)
    command = [*MEADOW, "sweep", L2, "--trials", "4"]
    killed = subprocess.Popen(
        command, cwd=clone, env=surroundings(clone), stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout
    while "1/4" not in killed.stdout.readline():
        assert killed.poll() is None
    killed.kill()
    killed.communicate()
    kept = experiments(clone)
    resumed = run(*command)
    after = experiments(clone)

    assert 1 <= len(kept) < 4
    assert kept.items() <= after.items()
    assert len(after) == 4
    # The kill may come between the end of a trial and the line that says so.
    known = re.search(r"4 trials, (\d) of them known", resumed)
    assert known
    assert 1 <= int(known[1]) <= len(kept)
    assert "1/4" not in resumed
    assert "4/4" in resumed
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
    assert "4 of them known" in run(*command)


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
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=300)

    assert process.returncode == 130
    assert "The same command goes on" in output
    assert not list((clone / ".dvc/tmp/sweeps").glob("*/clone-*"))


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_sweep_goes_on(clone: Path) -> None:
    """Values that are known are not run again, whether they failed or not."""
    before = experiments(clone)
    output = runner(clone)(*MEADOW, "sweep", "train.arch=nope,shufflenet_v2_x0_5", "--trials", "6")

    assert "s): train.arch: 'nope' is not a classification model" in output
    assert output.count("(known)") == 4
    assert len(experiments(clone)) == len(before) + 1
    none = attempt(clone, *MEADOW, "sweep", "train.arch=nope", "--trials", "2")
    assert none.returncode == 1
    assert "all trials failed" in none.stderr


@pytest.mark.slow
def test_a_sweep_over_finetune_is_judged_by_val(clone: Path) -> None:
    """By the figures of the epoch that each trial kept."""
    before = experiments(clone)
    learning = ("train.method=finetune", "train.finetune.lr=1e-5,1e-3")
    output = runner(clone)(*MEADOW, "sweep", *learning, "--trials", "2")
    trials = experiments(clone, "metrics/train/metrics.json")
    best = min(trials.keys() - before, key=lambda name: trials[name]["val"]["log_loss"])

    assert len(trials) == len(before) + 2
    assert f"dvc exp apply {best}" in output
    assert "--sort-by metrics/train/metrics.json:val.log_loss" in output
