"""Share every version with colleagues, and prove that they get it back."""

import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Set
from pathlib import Path

from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.storage import dvc_git, dvc_objects, local_config, shared_features
from meadow.storage.s3_remote import MissingError, Remote

OBJECTS_SHOWN = 10
SHARED = Path(".dvc/tmp/meadow/shared.json")  # ignored by Git and DVC
EXPERIMENTS = "refs/exps/[0-9a-f][0-9a-f]"  # other refs there are DVC's own
OF_EXPERIMENT = re.compile(rf"\t{EXPERIMENTS}/")


def share() -> None:
    """Push what a colleague needs: data, models and runs of all commits, experiments, features.

    Commits that were shared before are not looked at again while their objects are on the remote.
    Commits themselves are pushed by their author; what Git lacks for a colleague is said.

    Raises:
        MeadowError: the remote cannot be written to, or a push fails.

    """
    store = Remote.load()
    store.check(write=True)
    there = store.sizes()
    wrong = incomplete(there, dvc_objects.cache())
    store.forget(wrong)
    origin = dvc_git.remote()
    experiments = _experiments("for-each-ref", "--format=%(objectname)\t%(refname)", "refs/exps")
    try:
        _push(store, there.keys() - wrong)
        shared_features.push(store)
        if origin and experiments:
            experiments -= _experiments("ls-remote", origin, "refs/exps/*")
        if origin and experiments:
            dvc_git.dvc("exp", "push", "--all-commits", "--no-cache", origin)
    except MeadowError as error:
        store.check(write=True)  # it says better than DVC what is wrong
        raise MeadowError(f"{error}. Nothing is lost: run `make share` again.") from None
    if experiments and not origin:
        print("Experiments are shared through a Git remote: `git remote add origin URL`.")
    if dvc_git.git("status", "--porcelain", "--untracked-files=no"):
        print("Not shared: changes that are not committed. Next: `git commit -a`.")
    elif not origin or _unpushed():
        print("Git's part is not shared yet. Next: `git push`.")


def refuse_unshared() -> None:
    """Make sure that colleagues can get HEAD: its objects, and where there is a Git remote, itself.

    Raises:
        MeadowError: they cannot, or the remote does not answer.

    """
    states = json.loads(dvc_git.dvc("status", "--cloud", "--json", quiet=True))
    # of the others, `deleted` is on the remote and not here, as after a partial pull
    if lacking := sorted(path for path, state in states.items() if state in ("new", "missing")):
        raise MeadowError(f"the remote lacks {', '.join(lacking)}. Run `make share`.")
    if dvc_git.remote() and _unpushed():
        raise MeadowError("HEAD is on no Git remote. Run `git push`.")


def _unpushed() -> str:
    return dvc_git.git("log", "--oneline", "HEAD", "--not", "--remotes")


def _push(store: Remote, there: Set[str]) -> None:
    """Push all that the remote lacks, of the workspace and of each commit and experiment.

    Args:
        store: the remote.
        there: names of the whole objects on it.

    Raises:
        MeadowError: not all could be pushed.

    """
    commits, objects = _shared(store)
    if not objects <= there:  # somebody has removed what was shared: look at all commits again
        commits, objects = set(), set()
    refs = ["HEAD", "--branches", "--tags", "--remotes", f"--glob={EXPERIMENTS}/*"]
    new = sorted(set(dvc_git.git("rev-list", *refs).split()) - commits)
    needed, pushed = dvc_objects.push(new, there)
    print(f"{pushed} objects pushed." if pushed else "The remote has all objects.")
    if needed <= store.sizes().keys():  # not so where an old version was never pulled
        content = {"commits": sorted(commits | {*new}), "objects": sorted(objects | needed)}
        atomic.write_json(SHARED, {store.where: content})


def _shared(store: Remote) -> tuple[set[str], set[str]]:
    """Return the commits that are known to be on this remote, and the objects that they need."""
    try:
        content = json.loads(SHARED.read_text("utf-8"))[store.where]
        return set(content["commits"]), set(content["objects"])
    except (OSError, ValueError, KeyError):
        return set(), set()


def _experiments(*command: str) -> set[str]:
    """Return commit and ref of each experiment that a command of Git lists."""
    return {line for line in dvc_git.git(*command).splitlines() if OF_EXPERIMENT.search(line)}


def incomplete(there: Mapping[str, int], cache: Path) -> list[str]:
    """Return the objects on the remote that a push would wrongly take for whole.

    That is those of another size than the cache's, and the lists of folders that lack a file there.

    Args:
        there: bytes of each object on the remote by its name.
        cache: DVC's.

    """
    both = [name for name in dvc_objects.names(cache) if name in there]
    wrong = {name for name in both if there[name] != (cache / name).stat().st_size}
    for name in both:
        if name.endswith(".dir"):
            files = set(dvc_objects.members((cache / name).read_bytes()).values())
            if files & wrong or files - there.keys():
                wrong.add(name)
    return sorted(wrong)


def verify() -> None:
    """Prove that a colleague gets everything of HEAD back, byte for byte, without running a stage.

    A clone in a temporary folder with a cache of its own pulls from the remote, hashes every file
    anew, and runs the pipeline, which must find nothing to do.

    Raises:
        MeadowError: the remote cannot be read, something is missing or differs, or a stage ran.

    """
    started = time.monotonic()
    store = Remote.load()
    store.check(write=False)
    with tempfile.TemporaryDirectory() as temporary:
        clone, cache, state = (Path(temporary, name) for name in ("clone", "cache", "state"))
        dvc_git.git("clone", "--quiet", "--no-local", str(Path.cwd()), str(clone))
        if local_config.LOCAL.exists():
            shutil.copy2(local_config.LOCAL, clone / local_config.LOCAL)
        dvc_git.dvc("config", "--local", "cache.dir", str(cache), cwd=clone)
        dvc_git.dvc("config", "--local", "core.site_cache_dir", str(state), cwd=clone)
        try:
            dvc_git.dvc("pull", cwd=clone)
        except MeadowError as error:
            store.check(write=False)
            raise MeadowError(_lost(store, clone) or str(error)) from None
        shutil.rmtree(state)  # without it DVC believes no time stamp, and hashes every file
        changed = json.loads(dvc_git.dvc("status", "--json", cwd=clone, quiet=True))
        if not changed:
            output = dvc_git.dvc("repro", "--pull", cwd=clone, quiet=True)
            changed = re.findall(r"Running stage '(.+?)'", output)
        changed = [*changed, *dvc_git.git("-C", str(clone), "status", "--porcelain").splitlines()]
        if changed:
            raise MeadowError(
                f"in a clone of HEAD this is not as it was committed: {', '.join(changed)}. Run"
                " `dvc repro`, `git commit -a` and `make share` where it was made."
            )
        count = len(dvc_objects.names(cache))
    commit, seconds = dvc_git.git("rev-parse", "--short", "HEAD"), time.monotonic() - started
    print(
        f"A clone of {commit} got all its {count} objects back in {seconds:.0f} s: no stage ran,"
        " every hash is the committed one."
    )


def _lost(store: Remote, clone: Path) -> str:
    """Say which objects of a commit the remote does not give back; nothing if it gives them all.

    Raises:
        MeadowError: the remote cannot tell, for example because it stopped answering.

    """
    lost, wanted = [], dvc_objects.outs(clone)
    while wanted:
        path, name = wanted.pop()
        try:
            state = _state(store, name)
        except MeadowError as error:
            raise MeadowError(f"{path}: {error}") from None
        if state:
            lost.append(f"{path}: s3://{store.bucket}/{store.prefix}/{name} is {state}")
        elif name.endswith(".dir"):
            files = dvc_objects.members(b"".join(store.pieces(name)))
            wanted += [(f"{path}/{file}", of_file) for file, of_file in files.items()]
    if not lost:
        return ""
    shown = sorted(lost)[:OBJECTS_SHOWN] + [f"and {len(lost) - OBJECTS_SHOWN} more"] * (
        len(lost) > OBJECTS_SHOWN
    )
    end = "Then run `make share` where these files were made, or are whole."
    return "\n".join([f"the remote does not give back {len(lost)} objects.", *shown, end])


def _state(store: Remote, name: str) -> str:
    try:
        return "" if dvc_objects.whole(name, store.pieces(name)) else "damaged: delete it"
    except MissingError:
        return "missing"
