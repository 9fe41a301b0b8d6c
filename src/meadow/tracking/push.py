"""Write commits and experiments into an MLflow server, each once.

A run is known by a tag with its commit. The tag that says that it is whole is written with the last
of its data, so a push that was killed goes on in the same run, and writes the same again.
"""

import fcntl
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meadow.errors import MeadowError
from meadow.experiments import registry
from meadow.experiments.revision import Revision
from meadow.storage import dvc_git
from meadow.tracking import model_versions
from meadow.tracking.content import Content, contents
from meadow.tracking.server import KEY, MODEL, NAME, PARENT, PUSHED, Server, as_text, errors

LOCK = Path(".dvc/tmp/mlflow.lock")
EXPERIMENT = re.compile(r"(\w+) refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")
SWEEP = re.compile(r"(.+)-\d+")  # what `meadow sweep` and a queued grid of DVC call their trials
AT_ONCE = 8  # runs; a server works while others are read
MOST = 100  # params that MLflow takes at once; of figures it takes 1000


@dataclass(frozen=True)
class Entry:
    """What becomes a run.

    Attributes:
        key: the commit; of a sweep, which has no data of its own, its baseline and name.
        name: of the run.
        commit: its hash; "" for a sweep.
        parent: key of the run that it is shown under, or "".

    """

    key: str
    name: str
    commit: str = ""
    parent: str = ""


def push(names: Sequence[str]) -> None:
    """Write what the server lacks, then make versions and stages those of the registry.

    Args:
        names: of commits and experiments; none means HEAD, all releases and all experiments.

    Raises:
        MeadowError: a name is unknown, or the server does not answer.

    """
    entries = _entries(names)
    server = Server.connect()
    with _alone(), errors():
        missing, count = _push(server, entries)
    print(
        f"{missing} runs written, {len(entries) - missing} were there;"
        f" {count} versions of the model. {server.url}"
    )


def _push(server: Server, entries: Sequence[Entry], tries: int = 5) -> tuple[int, int]:
    """Return how many runs were missing, and how many versions of the model there are.

    Somebody else who writes the same at the same time may delete what this one has written twice.
    Then the server refuses the next step here, and it begins again with what is there.
    """
    from mlflow.exceptions import RestException

    runs = server.runs()
    whole = _by_key(runs, whole=True)
    missing = [entry for entry in entries if entry.key not in whole]
    try:
        if missing:
            _write(server, missing, runs)
            whole = _once(server)
        _link(server, entries, whole)
        ids = {key: run.info.run_id for key, run in whole.items()}
        return len(missing), model_versions.sync(server, ids)
    except RestException:
        if tries == 1:
            raise
        return len(missing), _push(server, entries, tries - 1)[1]


def _entries(names: Sequence[str]) -> list[Entry]:
    """Return what is to be there, those that are shown under others after them."""
    experiments = {}
    lines = dvc_git.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps")
    for ref in map(EXPERIMENT.fullmatch, lines.splitlines()):
        if ref:
            commit, name, baseline = ref[1], ref[4], ref[2] + ref[3]
            sweep = SWEEP.fullmatch(name)
            parent = f"{baseline} {sweep[1]}" if sweep else baseline
            experiments[commit] = Entry(commit, name, commit, parent)
    released = {version.commit: version.name for version in registry.versions()}
    if names:
        chosen = [Revision.find(name).commit for name in names]
        if "" in chosen:
            raise MeadowError("the workspace is no commit. Run `git commit -a`, then push HEAD.")
    else:
        chosen = [Revision.find("HEAD").commit, *released, *experiments]
    entries: dict[str, Entry] = {}

    def add(key: str) -> None:
        baseline, _, sweep = key.partition(" ")
        if sweep:
            entry = Entry(key, sweep, parent=baseline)
        else:
            plain = Entry(key, released.get(key, key[:7]), key)
            entry = experiments.get(key, plain)
        if entry.parent:
            add(entry.parent)
        entries[key] = entry

    for commit in chosen:
        add(commit)
    return list(entries.values())


@contextmanager
def _alone() -> Iterator[None]:
    """Have one push of this clone wait for another."""
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _by_key(runs: Sequence[Any], *, whole: bool) -> dict[str, Any]:
    """Return the runs that are whole, or those that are not, by key; the first of each."""
    by_key: dict[str, Any] = {}
    for run in sorted(runs, key=lambda run: run.info.run_id):
        if KEY in run.data.tags and (PUSHED in run.data.tags) == whole:
            by_key.setdefault(run.data.tags[KEY], run)
    return by_key


def _write(server: Server, entries: Sequence[Entry], runs: Sequence[Any]) -> None:
    """Write runs: first all of them, parents before others, then what is in them."""
    begun = _by_key(runs, whole=False)
    trainings = [run for run in runs if {KEY, MODEL} & run.data.tags.keys() == {MODEL}]
    ids = {key: run.info.run_id for key, run in _by_key(runs, whole=True).items()}
    of_commits = [Revision(entry.name, entry.commit) for entry in entries if entry.commit]
    by_commit = {content.revision.commit: content for content in contents(of_commits)}
    filled = []
    for entry in entries:
        content = by_commit.get(entry.commit)
        run = begun.get(entry.key)
        if content and not run and (run := _training(trainings, content)):
            server.client.set_tag(run.info.run_id, KEY, entry.key)
            server.client.set_tag(run.info.run_id, NAME, entry.name)
        ids[entry.key] = run.info.run_id if run else _create(server, entry, content, ids)
        filled.append((ids[entry.key], content, bool(run and MODEL in run.data.tags)))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda arguments: _fill(server, *arguments), filled))


def _training(trainings: list[Any], content: Content) -> Any | None:
    """Take out the run that `tracking/live.py` wrote of the training of this commit's model."""
    known = {key: as_text(value) for key, value in content.revision.parameters.items()}
    for run in trainings:
        if run.data.tags[MODEL] == content.model and run.data.params.items() <= known.items():
            trainings.remove(run)
            return run
    return None


def _create(server: Server, entry: Entry, content: Content | None, ids: Mapping[str, str]) -> str:
    tags = {KEY: entry.key}
    if entry.parent in ids:
        tags[PARENT] = ids[entry.parent]
    when = content.when if content else None
    run = server.client.create_run(server.experiment, when, tags, entry.name)
    return str(run.info.run_id)


def _fill(server: Server, run: str, content: Content | None, live: bool) -> None:
    """Write what is in a run; `live` says that it has the steps of its training already."""
    from mlflow.entities import Metric, Param, RunTag

    tags = {PUSHED: "true"}
    params: list[Any] = []
    metrics: list[Any] = []
    if content:
        with tempfile.TemporaryDirectory() as folder:
            content.lay_out(Path(folder))
            server.client.log_artifacts(run, folder)
        tags |= content.tags
        params = [Param(key, as_text(value)) for key, value in content.revision.parameters.items()]
        points = [(name, value, 0) for name, value in content.figures.items()]
        points += [] if live else content.steps
        metrics = [Metric(name, value, content.when, step) for name, value, step in points]
    if not live:
        server.client.set_terminated(run, "FINISHED", content.when if content else None)
    while len(params) > MOST or len(metrics) > MOST:
        server.client.log_batch(run, metrics[:MOST], params[:MOST])
        del metrics[:MOST], params[:MOST]
    server.client.log_batch(run, metrics, params, [RunTag(*tag) for tag in tags.items()])


def _once(server: Server) -> dict[str, Any]:
    """Delete what somebody else has written at the same time; return the whole runs by key.

    Whoever ends last sees both runs whole. All keep the same one.
    """
    runs = server.runs()
    whole = _by_key(runs, whole=True)
    for run in runs:
        tags = run.data.tags
        if PUSHED in tags and whole[tags[KEY]] is not run:
            server.client.delete_run(run.info.run_id)
    return whole


def _link(server: Server, entries: Sequence[Entry], whole: Mapping[str, Any]) -> None:
    """Have each run shown under its parent, where that is another one than it was."""
    for entry in entries:
        if entry.parent:
            run, parent = whole[entry.key], whole[entry.parent].info.run_id
            if run.data.tags.get(PARENT) != parent:
                server.client.set_tag(run.info.run_id, PARENT, parent)
