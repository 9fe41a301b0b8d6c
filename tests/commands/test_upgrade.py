"""`meadow upgrade`: the program becomes the newer one, the project in it stays the user's."""

import shutil
import subprocess
from pathlib import Path

import pytest
from clones import ROOT, Run, attempt, runner
from ruamel.yaml import YAML
from servers import meadow

OLD_PARAMS = """# old words
data:
  dir: data/raw  # old comment
train:
  lr: 0.002
  epochs: 30
  forgotten: 1
"""
NEW_PARAMS = """# new words
data:
  dir: data/raw  # new comment
train:
  seed: 0  # of order
  finetune:
    lr: 0.001
    epochs: 20
"""
REAL_OLD = "12350b7"  # train.lr was flat then


def commit(run: Run, folder: Path, message: str, **files: str) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    run("git", "add", "-A")
    run("git", "commit", "-qm", message)


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """Return a repository of an older version of the program."""
    folder = tmp_path / "upstream"
    folder.mkdir()
    run = runner(folder)
    run("git", "init", "-q", "-b", "trunk")
    run("dvc", "init", "-q")
    files = {"params.yaml": OLD_PARAMS, "src/stage.py": "1\n2\n3\n", "README.md": "Meadow\n"}
    demo = {"data/raw.dvc": "demo 1\n", "dvc.lock": "demo: 1\n", "metrics/m.json": "1\n"}
    demo["dvc.yaml"] = "stages: {train: {cmd: 'true', deps: [src/stage.py], outs: [model]}}\n"
    commit(run, folder, "older", **files, **demo)
    return folder


@pytest.fixture
def project(upstream: Path, tmp_path: Path) -> Path:
    """Return a clone of it with a set, values and metrics of its own."""
    folder = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", "-o", "upstream", upstream, folder], check=True)
    run = runner(folder)
    project_files = {
        "data/raw.dvc": "outs: []\n",
        "data/overrides.csv": "path\nmine\n",
        "metrics/m.json": "2\n",
    }
    project_files |= {"dvc.lock": "schema: '2.0'\n", "README.md": "My flowers\n"}
    commit(
        run, folder, "mine", **project_files, **{"params.yaml": OLD_PARAMS.replace("0.002", "3e-3")}
    )
    return folder


@pytest.fixture
def newer(upstream: Path, project: Path) -> Path:
    """Make upstream, after it was cloned, a newer version in code, parameters and demo."""
    files = {"params.yaml": NEW_PARAMS, "src/stage.py": "1\n2\n4\n", "README.md": "Meadow 2\n"}
    files["src/meadow/commands/moved_params.yaml"] = (
        "train.lr: train.finetune.lr\ntrain.epochs: train.finetune.epochs\n"
    )
    demo = {
        "data/raw.dvc": "demo 2\n",
        "data/overrides.csv": "path\ndemo\n",
        "dvc.lock": "demo: 2\n",
    }
    demo |= {"metrics/m.json": "3\n", "metrics/new.json": "3\n", "requirements.txt": "a\n"}
    demo["metrics/released.csv"] = "sha256,log_loss\nab,1\n"
    commit(runner(upstream), upstream, "newer", **files, **demo)
    return upstream


def state(folder: Path) -> tuple[str, str, str]:
    run = runner(folder)
    return (
        run("git", "rev-parse", "HEAD"),
        run("git", "status", "--porcelain"),
        run("git", "worktree", "list"),
    )


def test_the_program_is_the_newer_one_and_the_project_stays(newer: Path, project: Path) -> None:
    """Values move with their keys, new ones get defaults, comments are the newer ones."""
    output = runner(project)(*meadow("upgrade"))

    assert (project / "src/stage.py").read_text() == "1\n2\n4\n"
    assert (project / "params.yaml").read_text() == (
        NEW_PARAMS.replace("0.001", "3e-3").replace("20", "30")
    )
    assert "params.yaml: train.lr is train.finetune.lr now." in output
    assert "params.yaml: train.forgotten is gone; it was 1." in output
    assert "params.yaml: train.seed is new: 0." in output
    assert "Next: `make install`" in output
    assert "To run again: train, and what follows. Next: `dvc repro`." in output
    kept = {
        "data/raw.dvc": "outs: []\n",
        "data/overrides.csv": "path\nmine\n",
        "metrics/m.json": "2\n",
    }
    kept |= {"dvc.lock": "schema: '2.0'\n", "README.md": "My flowers\n"}
    assert {name: (project / name).read_text() for name in kept} == kept
    assert not (project / "metrics/new.json").exists()
    assert (project / "metrics/released.csv").read_text() == "sha256,log_loss\n"
    assert state(project)[1] == ""
    again = runner(project)(*meadow("upgrade", str(newer)))
    assert "has all of" in again


@pytest.mark.parametrize("source", ["URL", "other", "REV"])
def test_the_source_may_be_a_url_a_remote_or_a_revision(
    source: str, newer: Path, project: Path
) -> None:
    """Whatever the user has named the remote; the remote itself is never written to."""
    run = runner(project)
    run("git", "remote", "rename", "upstream", "other")
    run("git", "fetch", "-q", "other")
    before = state(newer)
    refused = attempt(project, *meadow("upgrade"))
    done = runner(project)(
        *meadow("upgrade", {"URL": str(newer), "REV": "other/trunk"}.get(source, source))
    )

    assert refused.returncode == 1
    assert "git remote add upstream URL" in refused.stderr
    assert "has the Meadow of" in done
    assert state(newer) == before


def dirty(project: Path, _newer: Path) -> str:
    (project / "src/stage.py").write_text("mine\n")
    return "there are changes that are not committed. Run `git commit -a`."


def both(project: Path, _newer: Path) -> str:
    commit(runner(project), project, "own code", **{"src/stage.py": "1\n2\n5\n"})
    return "have changed src/stage.py. Nothing was merged. Run `git merge"


def untracked(project: Path, _newer: Path) -> str:
    (project / "requirements.txt").write_text("mine\n")
    return "untracked working tree files would be overwritten"


def stranger(_project: Path, newer: Path) -> str:
    shutil.rmtree(newer / ".git")
    run = runner(newer)
    run("git", "init", "-q")
    commit(run, newer, "another history")
    return "has no commit in common with this clone"


def broken(_project: Path, newer: Path) -> str:
    commit(runner(newer), newer, "no parameters", **{"params.yaml": ""})
    return "the newer params.yaml has no parameters"


@pytest.mark.parametrize("fault", [dirty, both, untracked, stranger, broken])
def test_a_refused_upgrade_changes_nothing(fault: object, newer: Path, project: Path) -> None:
    """No commit, no half merge, no worktree."""
    message = fault(project, newer)  # type: ignore[operator]
    before = state(project)
    done = attempt(project, *meadow("upgrade"))

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert state(project) == before


def test_hooks_of_the_project_do_not_run_on_the_merge(newer: Path, project: Path) -> None:
    """Such as DVC's, which would check out all photos in the temporary worktree."""
    for name in ("post-checkout", "pre-merge-commit", "pre-commit"):
        hook = project / ".git/hooks" / name
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)

    assert "has the Meadow of" in runner(project)(*meadow("upgrade"))


@pytest.mark.slow
def test_a_real_clone_of_an_older_version(tmp_path: Path) -> None:
    """With the newer command, as docs/upgrading.md says; the parameters load in the newer code."""
    if attempt(ROOT, "git", "rev-parse", f"{REAL_OLD}^{{commit}}").returncode:
        pytest.skip("the history is not here")
    folder = tmp_path / "project"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    run = runner(folder)
    run("git", "checkout", "-q", "-b", "mine", REAL_OLD)
    text = (folder / "params.yaml").read_text()
    commit(run, folder, "mine", **{"params.yaml": text.replace("lr: 0.002", "lr: 0.003")})
    lock = (folder / "dvc.lock").read_text()
    output = run("python", "-m", "meadow.commands.upgrade", "origin", PYTHONPATH=str(ROOT / "src"))

    assert "train.lr is train.finetune.lr now" in output
    assert "To run again: prepare, train, evaluate" in output
    assert YAML(typ="safe").load(folder / "params.yaml")["train"]["finetune"]["lr"] == 0.003
    assert (folder / "dvc.lock").read_text() == lock
    run("python", "-c", "from meadow import params; params.load()")
