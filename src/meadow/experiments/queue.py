"""The queue of `dvc exp run --queue`, run to its end: one worker, one retry, and the log of a loss.

DVC loses tasks of several workers, forgets tasks whose worker died, and has no retry
(github.com/treeverse/dvc/issues/10673, 10398, 9143).
"""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from dvc.repo.experiments.queue.tasks import run_exp

from meadow.errors import MeadowError
from meadow.storage import dvc_git

PAUSE = 1.0  # seconds
STARTS = 10.0  # seconds that a worker has to show itself
SHOWN = 15  # lines of a log


def run() -> None:
    """Start one worker, wait until nothing is queued or runs, and try once more what failed.

    Raises:
        MeadowError: some failed twice; the end of their logs was shown.

    """
    retried: set[str] = set()
    while True:
        _wait()
        failed = {task["rev"]: task for task in _status() if task["status"] == "Failed"}
        if not failed.keys() - retried:
            break
        for rev in failed.keys() - retried:
            print(f"{_name(failed[rev])} failed and is tried once more.", flush=True)
            _again(rev)
        retried |= failed.keys()
    for rev, task in failed.items():
        print(f"\n{_name(task)} failed twice. The end of its log:\n{_log(rev)}")
    if failed:
        raise MeadowError(
            f"{len(failed)} experiments failed: {', '.join(map(_name, failed.values()))}."
            " `dvc queue logs NAME` shows all of a log, `dvc queue remove --failed` forgets them."
        )


def _wait() -> None:
    """Wait, saying what changes; start a worker where there is none and work is left."""
    said, started = "", -STARTS
    while True:
        tasks = _status()
        counts = Counter(task["status"] for task in tasks)
        names = [_name(task) for task in tasks if task["status"] == "Running"]
        now = f"{counts['Queued']} queued, {counts['Failed']} failed, {counts['Success']} done"
        now += f"; {', '.join(names)} runs" if names else ""
        if now != said:
            print(now, flush=True)
            said = now
        if not counts["Queued"] and not names:
            return
        if time.monotonic() - started > STARTS:
            started = time.monotonic()
            with Repo() as repo:
                queue = repo.experiments.celery_queue
                if not queue.worker_status():
                    lost = [task["rev"] for task in tasks if task["status"] == "Running"]
                    if lost:  # their worker died; DVC would call them running for ever
                        queue.kill(lost, force=True)
                    _start_worker()
        time.sleep(PAUSE)


def _start_worker() -> None:
    # The worker inherits these streams: one that is read would keep its reader waiting.
    silent = subprocess.DEVNULL
    command = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", "1"]
    subprocess.run(command, check=True, stdout=silent, stderr=silent)


def _status() -> list[dict[str, Any]]:
    with Repo() as repo:
        tasks: list[dict[str, Any]] = repo.experiments.celery_queue.status()
        return tasks


def _name(task: dict[str, Any]) -> str:
    return str(task["name"] or task["rev"][:7])


def _again(rev: str) -> None:
    """Queue a failed task as it was: its commit, name and baseline. DVC has no command for it."""
    with Repo() as repo:
        queue = repo.experiments.celery_queue
        entry = next(done.entry for done in queue.iter_failed() if done.entry.stash_rev == rev)
        stashed = queue.failed_stash.stash_revs.get(rev)
        queue.remove([rev])
        message = queue.stash.format_message(
            stashed.head_rev if stashed else entry.head_rev,
            baseline_rev=entry.baseline_rev, name=entry.name, branch=entry.branch,
        )  # fmt: skip
        repo.scm.set_ref(queue.stash.ref, rev, message=f"commit: {message}")
        queue.celery.signature(run_exp.s(entry.asdict())).delay()


def _log(rev: str) -> str:
    """Return the end of a task's log, or of the worker's where the task never began."""
    try:
        text = dvc_git.dvc("queue", "logs", rev, quiet=True)
    except MeadowError:
        logs = sorted(Path(".dvc/tmp/exps/celery").glob("dvc-exp-worker-*.out"))
        text = logs[-1].read_text("utf-8", "replace") if logs else "There is none."
    return "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN:])
