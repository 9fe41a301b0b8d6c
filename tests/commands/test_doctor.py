"""Each check of doctor and the fault that it finds; tests of sharing see them all pass."""

from pathlib import Path

import pytest
from clones import attempt, runner
from servers import SECRET, meadow, small_project

from meadow.commands import doctor
from meadow.errors import MeadowError

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project whose remote is down."""
    monkeypatch.chdir(small_project(tmp_path / "project", "http://127.0.0.1:9", files=3))
    (Path.cwd() / ".dvc/config.local").chmod(0o600)
    return Path.cwd()


def test_every_check_has_a_line_and_the_status_tells(folder: Path) -> None:
    """The remote is down: its other checks are skipped; no secret is printed."""
    done = attempt(folder, *meadow("doctor"))
    words = [line.split()[:2] for line in done.stdout.splitlines()]

    assert done.returncode == 1
    assert words == [
        ["ok", "Git"],
        ["ok", "packages"],
        ["ok", "keys"],
        ["ok", "cache"],
        ["ok", "computed"],
        ["ok", "disk"],
        ["FAIL", "remote"],
        ["skip", "write"],
        ["skip", "clock"],
    ]
    assert "`make minio`" in done.stdout
    assert done.stderr == "error: 1 of 9 checks failed: remote.\n"
    assert SECRET not in done.stdout + done.stderr


def test_another_version_than_the_pinned_one_is_named(folder: Path) -> None:
    """With the command that installs it."""
    path = folder / "requirements/serving.txt"
    path.write_text(path.read_text().replace("pillow==", "pillow==0.") + "no-such-package==1\n")

    with pytest.raises(MeadowError, match=r"pillow .*, pinned 0\..*no-such-package missing.*pip i"):
        doctor.packages()


def test_a_repository_without_an_author_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experiments are commits."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")

    with pytest.raises(MeadowError, match=r"Run `git config user\.email"):
        doctor.git()


def test_an_owner_that_git_doubts_is_in_its_own_words(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They name the command that mends it; a clone or `git init` would not."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")

    with pytest.raises(MeadowError, match=r"dubious ownership[\s\S]*--add safe\.directory"):
        doctor.git()


def test_a_key_in_git_is_named_and_not_printed(folder: Path) -> None:
    """`dvc remote modify` without --local puts it there."""
    runner(folder)("dvc", "remote", "modify", "minio", "secret_access_key", "do-not-tell")

    with pytest.raises(MeadowError, match="is in Git and has the key") as caught:
        doctor.keys()
    assert "do-not-tell" not in str(caught.value)


def test_keys_that_others_can_read_are_named(folder: Path) -> None:
    """And the command mends it."""
    (folder / ".dvc/config.local").chmod(0o644)
    with pytest.raises(MeadowError, match="others can read") as caught:
        doctor.keys()
    runner(folder)("sh", "-c", str(caught.value).split("`")[1])

    assert doctor.keys().endswith("for its owner only")


def test_a_full_disk_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 1 GiB."""
    monkeypatch.setattr(doctor, "FREE", 2**60)

    with pytest.raises(MeadowError, match=r"too little for another version.*gc --all-commits"):
        doctor.disk()


def test_outside_a_project_the_way_in_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check says so, none fails with a traceback."""
    monkeypatch.chdir(tmp_path)
    for check in (doctor.git, doctor.packages, doctor.cache, doctor.reach):
        with pytest.raises(MeadowError, match=r"Run this in"):
            check()
