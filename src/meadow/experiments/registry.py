"""Versions of the model and the stages that they are in: Git tags, which GTO writes and reads."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import gto.api
import semver
from gto.exceptions import GTOException
from scmrepo.exceptions import SCMError
from tabulate import tabulate

from meadow.errors import MeadowError
from meadow.pipeline import provenance
from meadow.storage import dvc_git

ARTIFACT = "classifier"  # of dvc.yaml


@dataclass(frozen=True)
class Version:
    """A released version of the model.

    Attributes:
        name: such as v1.2.0.
        commit: its hash.
        date: of the release.
        author: who released it.
        stages: that it is in.

    """

    name: str
    commit: str
    date: datetime
    author: str
    stages: list[str]

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What evaluate measured; empty where the commit has no figures."""
        return self._json(provenance.FIGURES.as_posix())

    @property
    def passed(self) -> bool:
        """Whether the gate passed it; not where the commit has no verdict."""
        return bool(self._json(provenance.VERDICT.as_posix()).get("passed"))

    def _json(self, path: str) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads(dvc_git.git("show", f"{self.commit}:{path}"))
        except (MeadowError, ValueError):
            return {}
        return content


def versions() -> list[Version]:
    """Return all released versions, newest first."""
    active: dict[str, dict[str, Any]] = {}
    for event in _events("registration", "deregistration"):
        active.pop(event["version"], None)
        if event["event"] == "registration":
            active[event["version"]] = event
    holders = {stage: history[-1] for stage, history in _stages().items() if history}
    listed = [
        Version(
            name, event["commit"], event["timestamp"], event["author"],
            [stage for stage, holder in holders.items() if holder == name],
        )
        for name, event in active.items()
    ]  # fmt: skip
    return sorted(listed, key=lambda version: _number(version.name), reverse=True)


def of(commit: str) -> str:
    """Return the name of the version of a commit, or ""."""
    return next((version.name for version in versions() if version.commit == commit), "")


def following(bump: str, *, candidate: bool) -> str:
    """Return the version after the last release, or the next candidate for it.

    Args:
        bump: the part that goes up: patch, minor or major.
        candidate: v1.1.0-rc.1, v1.1.0-rc.2, ... come before v1.1.0.

    """
    known = [_number(version.name) for version in versions()]
    released = [number for number in known if not number.prerelease]
    number = getattr(max(released), f"bump_{bump}")() if released else semver.Version(1)
    if candidate:
        before = (one for one in known if one.prerelease and one.finalize_version() == number)
        number = max(before, default=number).bump_prerelease()
    return f"v{number}"


def in_stage(stage: str) -> Version | None:
    """Return the version that is in a stage, or None."""
    return next((version for version in versions() if stage in version.stages), None)


def stages() -> list[str]:
    """Return the stages that .gto lists."""
    return list(gto.api.get_stages(".", allowed=True) or [])


def show() -> None:
    """Print all versions with their stages, date, figures and author."""
    header = [
        "version", "stages", "date", "accuracy (95 % interval)",
        "answered correctly (95 % interval)", "log-loss", "gate", "by",
    ]  # fmt: skip
    rows = [
        [
            version.name, ", ".join(version.stages), f"{version.date:%Y-%m-%d}",
            _interval(version.figures, "accuracy"),
            _interval(version.figures, "answered_accuracy"),
            f"{version.figures['log_loss']:.3f}" if "log_loss" in version.figures else "-",
            "passed" if version.passed else "refused", version.author,
        ]
        for version in versions()
    ]  # fmt: skip
    if rows:
        print(tabulate(rows, header, "simple", disable_numparse=True))
    else:
        print("There is no version yet. Next: `meadow release`.")


def promote(name: str, stage: str, override: str | None = None) -> None:
    """Put a version into a stage, where it takes the place of the one before.

    Args:
        name: of the version.
        stage: one of those in .gto.
        override: why a version that the gate refused is promoted all the same; the tag keeps it.

    Raises:
        MeadowError: there is no such version or stage, the gate refused the version, or the tag
            could not be pushed.

    """
    allowed = stages() or [stage]
    if stage not in allowed:
        raise MeadowError(f"{stage!r} is no stage: .gto lists {', '.join(allowed)}.")
    fetch()
    known = {version.name: version for version in versions()}
    if name not in known:
        listed = f"There are {', '.join(known)}." if known else "Next: `meadow release`."
        raise MeadowError(f"{name!r} is no released version. {listed}")
    if stage in known[name].stages:
        print(f"{name} is in {stage} already.")
        return
    if not known[name].passed and not override:
        raise MeadowError(
            f"the gate refused {name}. If it is to go to {stage} all the same, add"
            ' --override "why".'
        )
    _assign(name, stage, f"{name} to {stage}", override)


def rollback(stage: str) -> None:
    """Take the version in a stage back: the one that was there before takes its place.

    Raises:
        MeadowError: no version was there before, or the tag could not be pushed.

    """
    fetch()
    known = {version.name for version in versions()}
    history = [name for name in _stages().get(stage, []) if name in known]
    if len(history) < 2:
        raise MeadowError(
            f"there is no version to go back to in {stage!r}:"
            f" {f'{history[0]} is the first one' if history else 'it is empty'}."
            " `meadow versions` lists all; put one there by `meadow promote VERSION --to STAGE`."
        )
    _assign(history[-2], stage, f"{stage} back from {history[-1]} to {history[-2]}", None)


def _stages() -> dict[str, list[str]]:
    """Return the versions of each stage that one may go back to, in turn; the last is in it.

    A version that returns takes those after it out: they were taken back. So a second rollback
    does not bring back what the first one removed.
    """
    stages: dict[str, list[str]] = {}
    events = _events("assignment", "unassignment")
    for event in sorted(events, key=lambda event: int(event["ref"].rpartition("#")[2])):
        history = stages.setdefault(event["stage"], [])
        if event["version"] in history:
            del history[history.index(event["version"]) :]
        if event["event"] == "assignment":
            history.append(event["version"])
    return stages


def _assign(name: str, stage: str, title: str, override: str | None) -> None:
    tags = [event for event in _events("assignment", "unassignment") if event["stage"] == stage]
    for latest in (event["timestamp"] for event in tags):
        ahead = (latest - datetime.now(UTC)).total_seconds()
        if ahead > 0:
            raise MeadowError(
                f"{stage} was last changed at {latest:%Y-%m-%d %H:%M:%S} UTC, which is in the"
                " future here. GTO and DVC take the latest tag, and would not see this one. Set the"
                " clock, then run this again."
            )
        time.sleep(max(0, ahead + 1))  # they go by whole seconds
    with errors():
        assignment = gto.api.assign(
            ".", ARTIFACT, stage, version=name, message=message(title, override), force=True
        )
    publish(assignment.tag)
    print(f"{name} is in {stage}.")


def message(title: str, override: str | None) -> str:
    """Return what a tag says, with the reason for an override."""
    return f"{title}\n\nThe gate's verdict is overridden: {override}" if override else title


def publish(tag: str) -> None:
    """Push a tag to colleagues; take it back where that fails.

    Raises:
        MeadowError: it failed, for example because a colleague was faster.

    """
    remote = dvc_git.remote()
    if not remote:
        print(f"Only this clone has the tag {tag}: there is no Git remote. `git remote add` one.")
        return
    try:
        dvc_git.git("push", "--quiet", remote, f"refs/tags/{tag}")
    except MeadowError as error:
        dvc_git.git("tag", "--delete", tag)
        raise MeadowError(f"{error}\nNothing has changed. Mend it, then run this again.") from None


def fetch() -> None:
    """Get the tags that colleagues have pushed."""
    if remote := dvc_git.remote():
        pattern = f"refs/tags/{ARTIFACT}*"
        dvc_git.git("fetch", "--quiet", "--no-tags", remote, f"{pattern}:{pattern}")


@contextmanager
def errors() -> Iterator[None]:
    """Have what GTO raises be said as our own errors are."""
    try:
        yield
    except GTOException as error:
        raise MeadowError(f"GTO: {error}") from None
    except SCMError as error:  # such as: Git knows no author
        raise MeadowError(f"{error}. `meadow doctor` says how.") from None


def _events(*kinds: str) -> list[dict[str, Any]]:
    with errors():
        history = gto.api.history(".", ARTIFACT, ascending=True)
    return [event for event in history if event["event"] in kinds]


def _interval(figures: dict[str, Any], name: str) -> str:
    try:
        return "{:.3f} ({:.3f} to {:.3f})".format(
            *(figures[f"{name}{end}"] for end in ("", "_low", "_high"))
        )
    except KeyError:
        return "-"


def _number(name: str) -> semver.Version:
    return semver.Version.parse(name.removeprefix("v"))
