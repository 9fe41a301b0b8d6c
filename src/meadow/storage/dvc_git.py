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
    return _run([sys.executable, "-m", "dvc"], arguments, quiet, cwd)


def git(*arguments: str, cwd: Path | None = None) -> str:
    """Run a Git command, here or in `cwd`, and return what it prints.

    Raises:
        MeadowError: it failed.

    """
    return _run(["git"], arguments, True, cwd).rstrip()


def remote() -> str:
    """Return the Git remote that is shared with colleagues: `origin`, or else the first; or ""."""
    names = git("remote").splitlines()
    return "origin" if "origin" in names else next(iter(names), "")


def _run(program: list[str], arguments: tuple[str, ...], quiet: bool, cwd: Path | None) -> str:
    name = program[-1]
    try:
        done = subprocess.run(
            [*program, *arguments], cwd=cwd, check=False, text=True, capture_output=quiet
        )
    except FileNotFoundError:
        raise MeadowError(f"there is no `{name}` on PATH. Install it.") from None
    if done.returncode:
        reason = f":\n{done.stderr.strip()}" if quiet else ""
        raise MeadowError(f"`{name} {' '.join(arguments)}` failed{reason}")
    return done.stdout or ""


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
