"""An old or a new version is always there, whole: on errors, and when killed at any step."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from meadow.pipeline import atomic

# Replaces the path that it is given; is killed just before its n-th change of the file system.
CHILD = """
import os, signal, sys
from pathlib import Path
from meadow.pipeline import atomic

path, kind, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir"}

def count(event, arguments):
    global left
    if event in CHANGES or event == "open" and arguments[2] & os.O_CREAT:
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

sys.addaudithook(count)
with atomic.whole(path) as part:
    if kind == "file":
        part.write_text("new")
    else:
        (part / "inside").mkdir(parents=True)
        (part / "a").write_text("new")
        (part / "inside" / "b").write_text("new")
"""


def write(path: Path, kind: str, text: str) -> None:
    if kind == "file":
        path.write_text(text)
    else:
        (path / "inside").mkdir(parents=True)
        (path / "a").write_text(text)
        (path / "inside" / "b").write_text(text)


def content(path: Path) -> str:
    """Return what each file holds; fail where one is missing or they differ."""
    if path.is_file():
        return path.read_text()
    texts = {(path / name).read_text() for name in ("a", "inside/b")}
    assert len(texts) == 1
    return texts.pop()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new_version(tmp_path: Path, kind: str) -> None:
    """A file is never missing; a folder is there under its own name, or comes back at the start."""
    path = tmp_path / "photos"
    write(path, kind, "old")
    for step in range(100):
        child = [sys.executable, "-c", CHILD, str(path), kind, str(step)]
        code = subprocess.run(child, check=False).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if kind == "file" or path.exists():
            assert content(path) in ("old", "new")

        with pytest.raises(ZeroDivisionError), atomic.whole(path):
            raise ZeroDivisionError  # the next start fails: what was there must still be there

        assert content(path) in ("old", "new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]
        atomic.remove(path)
        write(path, kind, "old")

    assert step >= (2 if kind == "file" else 9)
    assert content(path) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["photos"]


def replace_by_a_folder(part: Path) -> None:
    write(part, "folder", "new")


def replace_by_a_file(part: Path) -> None:
    write(part, "file", "new")


@pytest.mark.parametrize("old", ["none", "file", "folder", "link"])
@pytest.mark.parametrize("replace", [replace_by_a_folder, replace_by_a_file])
def test_anything_is_replaced_by_anything(
    tmp_path: Path, old: str, replace: Callable[[Path], None]
) -> None:
    """A link is replaced, not what it leads to."""
    path, elsewhere = tmp_path / "made" / "photos", tmp_path / "elsewhere"
    path.parent.mkdir()
    write(elsewhere, "folder", "old")
    if old == "link":
        path.symlink_to(elsewhere)
    elif old != "none":
        write(path, old, "old")

    with atomic.whole(path) as part:
        replace(part)

    assert content(path) == "new"
    assert not path.is_symlink()
    assert content(elsewhere) == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_error_leaves_the_old_version(
    tmp_path: Path, kind: str, error: type[BaseException]
) -> None:
    """Also one that ends the process, and with half a new version written."""
    path = tmp_path / "photos"
    write(path, kind, "old")

    with pytest.raises(error), atomic.whole(path) as part:  # noqa: PT012  # both steps matter
        write(part, kind, "new")
        raise error

    assert content(path) == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_an_interrupt_between_two_steps_leaves_the_old_version(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C just before the new version comes to its place."""
    path = tmp_path / "photos"
    write(path, kind, "old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt), atomic.whole(path) as part:
        write(part, kind, "new")

    assert content(path) == "old"
    assert list(tmp_path.iterdir()) == [path]
