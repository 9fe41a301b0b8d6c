"""Versions and stages, in a repository with an origin and a colleague's clone."""

import json
import shutil
from pathlib import Path

import gto.api
import pytest
from clones import ROOT, Run, attempt, runner

from meadow.errors import MeadowError
from meadow.experiments import registry

FIGURES = {"accuracy": 0.97, "accuracy_low": 0.91, "accuracy_high": 0.99, "log_loss": 0.1}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Stand in a repository with three released versions, of which the gate refused the last."""
    folder = tmp_path / "here"
    (folder / "metrics").mkdir(parents=True)
    shutil.copy(ROOT / ".gto", folder)
    monkeypatch.chdir(folder)
    run = runner(folder)
    run("git", "init", "-q", "--bare", "-b", "main", "../origin.git")
    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.name", "Ada")
    run("git", "config", "user.email", "ada@localhost")
    run("git", "remote", "add", "upstream", "nowhere")
    run("git", "remote", "add", "origin", "../origin.git")
    for name, passed in (("v1.0.0", True), ("v1.1.0", True), ("v1.2.0", False)):
        Path("metrics/evaluate.json").write_text(json.dumps({**FIGURES, "of": name}))
        Path("metrics/gate.json").write_text(json.dumps({"passed": passed, "why": []}))
        run("git", "add", "-A")
        run("git", "commit", "-qm", name)
        gto.api.register(".", registry.ARTIFACT, "HEAD", version=name)
    run("git", "push", "-q", "origin", "main", "--tags")
    return run


def tags(run: Run, repository: str = ".") -> list[str]:
    return run("git", "-C", repository, "tag", "--list", "*#*").split()


def test_a_version_is_promoted_for_everybody(run: Run) -> None:
    """Its tag is at the origin, and GTO's own command reads it."""
    registry.promote("v1.0.0", "staging")
    registry.promote("v1.1.0", "staging")
    registry.promote("v1.0.0", "prod")

    assert tags(run) == tags(run, "../origin.git")
    shown = {row["version"]: row for row in gto.api.show(".", registry.ARTIFACT)}
    assert [stage["stage"] for stage in shown["v1.0.0"]["stages"]] == ["prod"]
    holder = registry.in_stage("prod")
    assert holder
    assert (holder.name, holder.commit) == ("v1.0.0", run("git", "rev-parse", "HEAD~2").strip())


def test_without_an_author_no_tag_is_made(run: Run, tmp_path: Path) -> None:
    """GTO tells of it by an error of another package."""
    run("git", "config", "--remove-section", "user")
    Path(".dvc").mkdir()
    command = ["meadow", "promote", "v1.0.0", "--to", "prod"]
    done = attempt(Path(), *command, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))

    assert done.returncode == 1
    assert "name and email must be configured. `meadow doctor`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not tags(run)


def test_what_is_in_the_stage_gets_no_second_tag(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each tag starts a deployment."""
    registry.promote("v1.0.0", "prod")
    registry.promote("v1.0.0", "prod")

    assert tags(run) == ["classifier#prod#1"]
    assert "v1.0.0 is in prod already" in capsys.readouterr().out


@pytest.mark.usefixtures("run")
@pytest.mark.parametrize(
    ("version", "stage", "why"),
    [
        ("v1.0.1", "prod", r"'v1\.0\.1' is no released version.*v1\.1\.0, v1\.0\.0\."),
        ("v1.0.0", "prd", r"'prd' is no stage.*staging, prod"),
        ("v1.2.0", "prod", r"the gate refused v1\.2\.0.*--override"),
    ],
)
def test_a_promotion_that_is_refused_leaves_no_tag(
    run: Run, version: str, stage: str, why: str
) -> None:
    """With what is wrong, and what there is."""
    with pytest.raises(MeadowError, match=why):
        registry.promote(version, stage)

    assert tags(run) == []


def test_the_reason_of_an_override_is_in_the_tag(run: Run) -> None:
    """Colleagues read it with Git alone."""
    registry.promote("v1.2.0", "prod", "the old one is worse on snow")

    text = run("git", "-C", "../origin.git", "tag", "--list", "--format=%(contents)", "*#prod#1")
    assert "The gate's verdict is overridden: the old one is worse on snow" in text


@pytest.mark.slow
def test_rollbacks_go_back_version_by_version(run: Run) -> None:
    """The second one does not bring back what the first one removed."""
    for name in ("v1.0.0", "v1.1.0"):
        registry.promote(name, "prod")
    registry.promote("v1.2.0", "prod", "tried")
    holders = []
    for _ in range(2):
        registry.rollback("prod")
        holder = registry.in_stage("prod")
        assert holder
        holders.append(holder.name)

    assert holders == ["v1.1.0", "v1.0.0"]
    with pytest.raises(MeadowError, match=r"no version to go back to in 'prod': v1\.0\.0 is the f"):
        registry.rollback("prod")
    with pytest.raises(MeadowError, match="'staging': it is empty"):
        registry.rollback("staging")
    registry.promote("v1.1.0", "prod")
    registry.rollback("prod")
    assert len(tags(run)) == 7


def test_what_was_deprecated_does_not_come_back(run: Run) -> None:
    """By GTO's own command; a rollback passes over it."""
    for name in ("v1.0.0", "v1.1.0"):
        registry.promote(name, "prod")
    registry.promote("v1.2.0", "prod", "tried")
    run("gto", "deprecate", registry.ARTIFACT, "v1.1.0")
    registry.rollback("prod")

    assert [version.name for version in registry.versions()] == ["v1.2.0", "v1.0.0"]
    holder = registry.in_stage("prod")
    assert holder
    assert holder.name == "v1.0.0"


def test_a_colleagues_promotion_counts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though this clone has not fetched it."""
    registry.promote("v1.0.0", "prod")
    run("git", "clone", "-q", "../origin.git", "../clone")
    run("git", "-C", "../clone", "config", "user.name", "Grace")
    run("git", "-C", "../clone", "config", "user.email", "grace@localhost")
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "clone")
        registry.promote("v1.1.0", "prod")
    registry.rollback("prod")

    holder = registry.in_stage("prod")
    assert holder
    assert holder.name == "v1.0.0"
    assert tags(run, "../origin.git") == [f"classifier#prod#{n}" for n in (1, 2, 3)]


def test_a_tag_that_cannot_be_pushed_is_taken_back(run: Run) -> None:
    """Otherwise this clone would believe what nobody else knows."""
    hook = Path("../origin.git/hooks/update")
    hook.write_text("#!/bin/sh\necho tags are protected >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(MeadowError, match=r"tags are protected[^$]*Nothing has changed"):
        registry.promote("v1.0.0", "prod")

    assert tags(run) == []


def test_without_a_git_remote_the_registry_is_local(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said."""
    run("git", "remote", "remove", "origin")
    run("git", "remote", "remove", "upstream")
    registry.promote("v1.0.0", "prod")

    assert "there is no Git remote" in capsys.readouterr().out
    assert tags(run) == ["classifier#prod#1"]


def test_a_clock_that_is_behind_changes_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """GTO and DVC take the latest tag: a rollback would have no effect, and nobody would notice."""
    registry.promote("v1.0.0", "prod")
    run(
        "git", "tag", "-a", "classifier#prod#2", "HEAD~1", "-m", "of a clock that is ahead",
        GIT_COMMITTER_DATE="2099-01-01T00:00:00",
    )  # fmt: skip
    with pytest.raises(MeadowError, match=r"2099-01-01 .*in the future"):
        registry.rollback("prod")

    assert len(tags(run)) == 2


def test_the_table_has_versions_stages_figures_and_who(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A version that somebody registered on a commit without figures is listed too."""
    run("git", "rm", "-q", "-r", "metrics")
    run("git", "commit", "-qm", "no figures")
    gto.api.register(".", registry.ARTIFACT, "HEAD", version="v1.10.0")
    registry.promote("v1.0.0", "prod")
    registry.promote("v1.0.0", "staging")
    capsys.readouterr()
    registry.show()
    _, _, newest, *_, oldest = capsys.readouterr().out.splitlines()

    assert newest.split()[0] == "v1.10.0"
    assert oldest.split()[:3] == ["v1.0.0", "prod,", "staging"]
    assert "0.970 (0.910 to 0.990)" in oldest
    assert oldest.endswith("passed   Ada")
    with pytest.raises(MeadowError, match=r"the gate refused v1\.10\.0"):
        registry.promote("v1.10.0", "prod")


def test_a_project_without_a_version_says_what_to_do(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Instead of an empty table."""
    run("sh", "-c", "git tag | xargs git tag --delete")
    registry.show()

    assert "Next: `meadow release`" in capsys.readouterr().out
