"""Bring a newer Meadow into a clone that has photos, parameters and results of its own."""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from meadow.errors import MeadowError, run
from meadow.storage.dvc_git import dvc, git

PARAMS = "params.yaml"
MOVED = "src/meadow/commands/moved_params.yaml"
USERS = ("data", "models", "metrics", "dvc.lock", PARAMS)  # nothing of the newer version's
USERS_IN_CONFLICT = ("README.md", ".dvc/config", ".dvcignore", ".gitignore")
TABLES = ("data/overrides.csv", "metrics/released.csv")  # stages need them, if only their header
INSTALLED = ("requirements.txt", "requirements", "pyproject.toml")


def upgrade(source: str = "upstream") -> None:
    """Merge a newer Meadow; photos, values of parameters, metrics and dvc.lock stay the user's.

    The merge is made in a temporary worktree, and the branch goes on to it when it is whole: on an
    error or a kill, nothing of it stays. Nothing is pushed.

    Args:
        source: a Git remote or URL, whose default branch is taken, or a revision that is here.

    Raises:
        MeadowError: changes that are not committed, no such source, no history in common, or files
            of the program that both sides have changed.

    """
    if git("status", "--porcelain", "--untracked-files=no"):
        raise MeadowError("there are changes that are not committed. Run `git commit -a`.")
    old, new = git("rev-parse", "HEAD"), _commit(source)
    try:
        if git("merge-base", old, new) == new:
            print(f"This clone has all of {source} already.")
            return
    except MeadowError:
        raise MeadowError(
            f"{source} has no commit in common with this clone. Give the Meadow that it was cloned"
            " from; for a shallow clone run `git fetch --unshallow` first."
        ) from None
    with tempfile.TemporaryDirectory() as temporary:
        tree = Path(temporary, "merge")
        git("-c", "core.hooksPath=/dev/null", "worktree", "add", "--detach", str(tree), old)
        try:
            notes = _merge(tree, new, source)
            merged = git("rev-parse", "HEAD", cwd=tree)
        finally:
            git("worktree", "remove", "--force", str(tree))
    git("merge", "--ff-only", merged)
    print(f"This clone has the Meadow of {source} now; `git reset --keep {old[:8]}` undoes it.")
    print(*notes, sep="\n")
    if git("diff", "--name-only", old, "--", *INSTALLED):
        print("Other packages are needed. Next: `make install`.")
    stages = [name for name in json.loads(dvc("status", "--json", quiet=True)) if "." not in name]
    if stages:
        print(f"To run again: {', '.join(stages)}, and what follows. Next: `dvc repro`.")


def _commit(source: str) -> str:
    """Return the commit to merge, fetched if need be."""
    if source not in git("remote").splitlines():
        try:
            return git("rev-parse", "--verify", "--quiet", f"{source}^{{commit}}")
        except MeadowError:
            if source == "upstream":
                raise MeadowError(
                    "there is no remote `upstream`. Run `git remote add upstream URL` with the"
                    " address of Meadow, or `meadow upgrade URL`."
                ) from None
    git("fetch", "--quiet", "--no-tags", source, "HEAD")
    return git("rev-parse", "FETCH_HEAD")


def _merge(tree: Path, new: str, source: str) -> list[str]:
    """Merge into the worktree and commit; return what the user should know of the parameters."""

    def here(*arguments: str) -> str:
        return git("-c", "core.hooksPath=/dev/null", *arguments, cwd=tree)

    conflicts: list[str] = []
    try:
        here("merge", "--no-commit", "--no-ff", new)
    except MeadowError:
        conflicts = here("diff", "--name-only", "-z", "--diff-filter=U").split("\0")[:-1]
        if not conflicts:
            raise
    users = [*USERS, *(path for path in USERS_IN_CONFLICT if path in conflicts)]
    here("rm", "-rqf", "--ignore-unmatch", "--", *users)
    here("checkout", "HEAD", "--", *here("ls-tree", "--name-only", "HEAD", *users).splitlines())
    for table in TABLES:
        if not (tree / table).exists() and here("ls-tree", "--name-only", new, table):
            (tree / table).parent.mkdir(exist_ok=True)
            header = here("show", f"{new}:{table}").splitlines()[0]
            (tree / table).write_text(f"{header}\n", "utf-8")
    notes = _merge_params(tree / PARAMS, lambda path: here("show", f"{new}:{path}"))
    here("add", "--", *(path for path in (PARAMS, *TABLES) if (tree / path).exists()))
    if both := here("diff", "--name-only", "--diff-filter=U"):
        raise MeadowError(
            f"both you and {source} have changed {', '.join(both.splitlines())}. Nothing was"
            f" merged. Run `git merge {new[:8]}` and resolve these files; keep your own version of"
            f" {', '.join(USERS)} (`git checkout HEAD -- PATH`)."
        )
    here("commit", "--quiet", "-m", f"Upgrade Meadow to {new[:8]} of {source}")
    return notes


def _merge_params(path: Path, read: Callable[[str], str]) -> list[str]:
    """Put the values of a params.yaml into the newer one, with its keys, defaults and comments.

    Args:
        path: the user's file, which is replaced.
        read: gives a file of the newer version.

    """
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 1000
    before, after = yaml.load(path.read_text("utf-8")), yaml.load(read(PARAMS))
    if not before or not after:
        raise MeadowError(f"the {'newer' if before else 'own'} {PARAMS} has no parameters.")
    try:
        moved = YAML(typ="safe").load(read(MOVED))
    except MeadowError:  # a version without such a table
        moved = {}
    defaults, values, notes = dict(_flat(after)), {}, []
    for key, value in _flat(before):
        target = key if key in defaults else moved.get(key)
        if target not in defaults:
            notes.append(f"{PARAMS}: {key} is gone; it was {value}.")
            continue
        values[target] = value
        if target != key:
            notes.append(f"{PARAMS}: {key} is {target} now.")
    for key, default in defaults.items():
        *sections, name = key.split(".")
        section = after
        for part in sections:
            section = section[part]
        section[name] = values.get(key, default)
        if key not in values:
            notes.append(f"{PARAMS}: {key} is new: {default}.")
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(after, file)
    return notes


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


if __name__ == "__main__":  # for a clone that is older than this command: see docs/upgrading.md
    run(lambda: upgrade(*sys.argv[1:]))
