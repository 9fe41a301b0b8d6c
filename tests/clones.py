"""A clone of the project with a toy set, and commands in it as a user gives them."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML
from toys import draw_set

ROOT = Path(__file__).parents[1]
Run = Callable[..., str]
BROKEN_PROXIES = {
    "http_proxy": "http://127.0.0.1:1",
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "NO_PROXY": "::1,[fe80::1],10.0.0.0/8",
}


def runner(folder: Path) -> Run:
    """Return a function that runs a command in a folder, fails if it fails, returns its output."""

    def run(*command: str, **environment: str) -> str:
        done = attempt(folder, *command, **environment)
        said = f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        return done.stdout

    return run


def attempt(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, as somebody with a name and this folder's code."""
    return subprocess.run(
        command, cwd=folder, env=surroundings(folder, **environment),
        check=False, capture_output=True, text=True,
    )  # fmt: skip


def surroundings(folder: Path, **environment: str) -> dict[str, str]:
    """Return the environment of commands in a folder."""
    return {
        **os.environ,
        "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{ROOT / 'src'}",  # the project may have none
        "MEADOW_CACHE": str(folder / ".dvc/tmp/meadow"),
        **environment,
    }


def copied(project: Path, folder: Path) -> Path:
    """Copy a project of DVC to an empty folder."""
    return Path(shutil.copytree(project, folder, symlinks=True, dirs_exist_ok=True))


def toy_clone(folder: Path) -> None:
    """Copy the committed and changed files to a folder, add a toy set, run once and commit."""
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, files):
        if (ROOT / name).exists() and (
            not name.startswith("metrics/") or name == "metrics/released.csv"
        ):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for name in ("data/raw.dvc", "dvc.lock"):
        (folder / name).unlink(missing_ok=True)
    text = YAML()
    values = text.load(folder / "params.yaml")
    values["prepare"].update(size=32, val=0.25, test=0.25)
    values["train"].update(
        method="finetune", arch="shufflenet_v2_x0_5", weights="none", precision="float32"
    )
    values["train"]["finetune"].update(
        epochs=2, batch_size=16, lr=0.0005, augment=1.0, frozen=0.0, average=0.0
    )
    text.dump(values, folder / "params.yaml")
    draw_set(folder / "data/raw", {"gold": 16, "moss": 16})
    run = runner(folder)
    run("git", "init", "-q", "-b", "main")
    run("dvc", "add", "-q", "data/raw")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "start")
    run("dvc", "repro")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first run")
