"""DVC and Git, called as a user would call them."""

import subprocess
import sys
from pathlib import Path

from meadow.errors import MeadowError


def dvc(*arguments: str, quiet: bool = False, cwd: Path | None = None) -> str:
    """Run a DVC command, here or in `cwd`; return what it prints if `quiet`, else show it.

    Raises:
        MeadowError: it failed.

    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=cwd, check=False, text=True, capture_output=quiet,
    )  # fmt: skip
    if done.returncode:
        said = f":\n{done.stderr.strip()}" if quiet else ""
        raise MeadowError(f"`dvc {' '.join(arguments)}` failed{said}")
    return done.stdout or ""


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run a Git command, here or in `cwd`, and return what it prints.

    Raises:
        MeadowError: it failed.

    """
    done = subprocess.run(["git", *arguments], cwd=cwd, check=False, text=True, capture_output=True)
    if done.returncode:
        raise MeadowError(f"`git {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout.rstrip()


def track(path: Path) -> None:
    """Put a file or folder under DVC: its content in the cache, its hash in `path`.dvc."""
    dvc("add", "--quiet", str(path))


def refuse_untracked(path: Path) -> None:
    """Make sure that what `path` holds can be had back before it is replaced.

    Raises:
        MeadowError: DVC does not track it, or it has changed since.

    """
    if not path.exists():
        return
    pointer = path.with_name(path.name + ".dvc")
    if not pointer.exists() or dvc("status", str(pointer), "--json", quiet=True).strip() != "{}":
        raise MeadowError(
            f"{path} holds photos that DVC does not know, and they would be lost. Run"
            f" `dvc add {path}` first and commit {pointer}, or move the folder away."
        )
