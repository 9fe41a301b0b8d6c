"""A search over ranges of params.yaml, by Optuna; each trial is an experiment of DVC.

Trials run in clones of HEAD that share the project's DVC cache, and their commits are fetched from
there. So nobody's workspace, stash or lock is touched, two trials may run at once, and whatever a
killed trial leaves behind is thrown away with its clone.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from meadow import params
from meadow.errors import MeadowError
from meadow.experiments import search_space
from meadow.experiments.objective import Objective
from meadow.storage import dvc_git, local_config

FOLDER = Path(".dvc/tmp/sweeps")  # ignored by Git and DVC
# On any machine: while one trial starts Python and DVC on one core, the other computes on all of
# them. More at once would share the cores, and be chosen from fewer results.
TRIALS_AT_ONCE = 2
MESSAGE_WIDTH = 150  # characters of an error in a trial's line


def sweep(
    arguments: Sequence[str], file: Path | None, trials: int, metric: str | None = None
) -> None:
    """Try values until there are so many trials; go on where an earlier start ended.

    Args:
        arguments: ranges as `search_space.read` takes them.
        file: likewise.
        trials: how many, those of an earlier start included.
        metric: what to select on; None is the usual one of the method.

    Raises:
        MeadowError: a range or the metric is refused, HEAD is not what is here, or all failed.

    """
    if trials < 1:
        raise MeadowError(f"--trials {trials} is refused: 1 or more.")
    space = search_space.read(arguments, file)
    methods = getattr(space.get("train.method"), "choices", [params.load().train.method])
    objective = Objective.of(metric, set(methods))
    _refuse_changes()
    commit = dvc_git.git("rev-parse", "HEAD")
    identity = json.dumps([sorted(f"{key} {space[key]}" for key in space), objective.name, commit])
    name = f"sweep-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"
    with _alone(FOLDER / name):
        study = _study(name, objective)
        done = len(_finished(study))
        print(f"{name}: {objective.name} over {trials} trials, {done} of them known.", flush=True)
        try:
            cache = dvc_git.dvc("cache", "dir", quiet=True).strip()
            count = min(TRIALS_AT_ONCE, max(trials - done, 0))
            clones = [_clone(FOLDER / name, cache) for _ in range(count)]
            while (left := trials - len(_finished(study))) > 0:
                _run_batch(study, space, objective, clones[:left], trials)
        except KeyboardInterrupt:
            print("\nThe same command goes on from here.")
            raise
    _conclude(study, objective)


@dataclass(frozen=True)
class Run:
    """A trial's `dvc exp run` in a clone."""

    process: "subprocess.Popen[bytes]"
    clone: Path
    name: str
    log: Path
    started: float

    @classmethod
    def start(cls, clone: Path, name: str, values: dict[str, Any]) -> "Run":
        """Start it; all that it prints goes into a log."""
        dvc_git.git("reset", "--quiet", "--hard", cwd=clone)
        # JSON's words are Hydra's too, and its quotes keep a text a text
        settings = [f"--set-param={key}={json.dumps(value)}" for key, value in values.items()]
        log = clone.with_name(f"{name}.log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "exp", "run", "evaluate", "-n", name, *settings],
                cwd=clone, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,  # to end its stages with it
            )  # fmt: skip
        return cls(process, clone, name, log, time.monotonic())

    def figure(self, objective: Objective) -> float:
        """Wait for the end, take the experiment over, and return its figure.

        Raises:
            MeadowError: it failed; in the last words of its stage.

        """
        if self.process.wait():
            log = self.log.relative_to(Path.cwd())
            raise MeadowError(f"{_last_message(self.log)} (all of it: {log})")
        figure = objective.read(self.clone)
        refs = f"refs/exps/*/{self.name}"
        dvc_git.git("fetch", "--quiet", str(self.clone), f"+{refs}:{refs}")
        return figure

    def stop(self) -> None:
        """End it with all that it has started, if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _run_batch(
    study: Study,
    space: dict[str, BaseDistribution],
    objective: Objective,
    clones: list[Path],
    trials: int,
) -> None:
    """Run a trial in each clone, and tell them to the study in their order.

    So the next choice depends on what is known by then, never on which trial was faster.
    """
    finished = _finished(study)
    seen = {_values(trial) for trial in finished}
    study.sampler = optuna.samplers.TPESampler(seed=len(finished), constant_liar=True)
    batch: list[tuple[Trial, Run | None]] = []
    try:
        for clone in clones:
            trial = study.ask(space)
            name = trial.user_attrs.get("name", f"{study.study_name}-{trial.number:03}")
            trial.set_user_attr("name", name)
            new = _values(trial) not in seen
            seen.add(_values(trial))
            batch.append((trial, Run.start(clone, name, trial.params) if new else None))
        for number, (trial, run) in enumerate(batch, len(finished) + 1):
            values = "  ".join(f"{key}={_short(value)}" for key, value in trial.params.items())
            outcome = _tell(study, trial, run, objective)
            print(f"{number:>3}/{trials}  {values}  {outcome}", flush=True)
    finally:
        for _, run in batch:
            if run:
                run.stop()


def _tell(study: Study, trial: Trial, run: Run | None, objective: Objective) -> str:
    """Tell the study what came of a trial, and return it in words."""
    figure = error = None
    if run:
        try:
            figure = run.figure(objective)
        except MeadowError as failure:
            error = str(failure)
        how = f"{time.monotonic() - run.started:.1f} s"
    else:
        same = next(other for other in _finished(study) if _values(other) == _values(trial))
        figure, error, how = same.value, same.user_attrs.get("error"), "known"
        trial.set_user_attr("name", same.user_attrs["name"])
    if figure is None:
        trial.set_user_attr("error", error)
        study.tell(trial, state=TrialState.FAIL)
        return f"failed ({how}): {error}"
    study.tell(trial, figure)
    best = study.best_trial
    return f"{objective.name} {figure:.5f} ({how})  best {best.value:.5f} {best.user_attrs['name']}"


def _study(name: str, objective: Objective) -> Study:
    """Open the study; what ran when it was killed is to be tried again, under the same name."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=f"sqlite:///{FOLDER / name}/study.db",
        study_name=name, direction=objective.direction, load_if_exists=True,
    )  # fmt: skip
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, trial.user_attrs)
    return study


def _finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that have a figure or failed by themselves; a killed one is neither."""
    ended = study.get_trials(states=[TrialState.COMPLETE, TrialState.FAIL])
    return [t for t in ended if t.state == TrialState.COMPLETE or "error" in t.user_attrs]


def _values(trial: Trial | FrozenTrial) -> str:
    return json.dumps(trial.params, sort_keys=True)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _conclude(study: Study, objective: Objective) -> None:
    finished = _finished(study)
    failed = [trial for trial in finished if trial.state == TrialState.FAIL]
    if len(failed) == len(finished):
        raise MeadowError(f"all trials failed; the last: {failed[-1].user_attrs['error']}")
    if failed:
        print(f"{len(failed)} of {len(finished)} trials failed.")
    best = study.best_trial
    name = best.user_attrs["name"]
    print(f"Best: {name}, {objective.name} {best.value:.5f}. Next: `dvc exp apply {name}`;")
    print(f"`dvc exp show --only-changed{objective.sorting}` lists them all.")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a sweep; the kernel frees it, however this process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MeadowError(f"{folder.name} is running already. Wait for it.") from None
        try:
            _remove_clones(folder)
            yield
        finally:
            _remove_clones(folder)  # a trial that outlived a `kill -9` may have written meanwhile


def _remove_clones(folder: Path) -> None:
    for clone in folder.glob("clone-*"):
        shutil.rmtree(clone, ignore_errors=True)


def _clone(folder: Path, cache: str) -> Path:
    """Make a clone of HEAD with this project's settings and DVC cache.

    Under a fresh name: a trial that outlived a `kill -9` may still write into its own.
    """
    clone = Path(tempfile.mkdtemp(prefix="clone-", dir=folder)).absolute()
    dvc_git.git("clone", "--quiet", str(Path.cwd()), str(clone))
    for key in ("user.name", "user.email"):
        known = dvc_git.git("config", "--get", "--default", "meadow", key)
        dvc_git.git("config", key, known, cwd=clone)
    if local_config.LOCAL.exists():
        shutil.copy2(local_config.LOCAL, clone / local_config.LOCAL)
    dvc_git.dvc("cache", "dir", "--local", cache, cwd=clone, quiet=True)
    return clone


def _refuse_changes() -> None:
    """Make sure that HEAD, which trials start from, is what is here.

    Raises:
        MeadowError: code, parameters or data differ from it.

    """
    lines = dvc_git.git("status", "--porcelain").splitlines()
    changed = [line[3:] for line in lines if not line.startswith("??") or line[3:7] == "src/"]
    if data := dvc_git.git("ls-files", "*.dvc").splitlines():
        changed += json.loads(dvc_git.dvc("status", "--json", *data, quiet=True))
    if changed:
        raise MeadowError(
            f"trials start from the last commit, and this is not in it: {', '.join(changed)}. Run"
            " `dvc add` for photos, `git add` and `git commit`; or take it back with `git checkout`"
            " and `dvc checkout`."
        )


def _last_message(log: Path) -> str:
    """Return what a failed stage printed last: the end of its own message, not DVC's about it."""
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines()]
    of_stage = [line for line in lines if line.startswith("error: ")]
    other = [line for line in lines if line and not line.startswith(("ERROR", "WARNING"))]
    message = (of_stage or other or lines or ["it printed nothing"])[-1].removeprefix("error: ")
    return message if len(message) <= MESSAGE_WIDTH else f"{message[:MESSAGE_WIDTH]}..."
