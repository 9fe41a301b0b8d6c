"""Check all that Meadow stands on, and say of each fault what mends it."""

import shlex
import shutil
import stat
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from configobj import ConfigObj
from packaging.utils import canonicalize_name

from meadow.errors import MeadowError
from meadow.pipeline import cache as own_cache
from meadow.pipeline.cache import GB
from meadow.storage import dvc_git, dvc_objects
from meadow.storage.local_config import LOCAL
from meadow.storage.s3_remote import Remote

FREE = 2**30  # bytes
CONSTRAINTS = Path("requirements/constraints.txt")
GROUPS = [
    Path("requirements", f"{name}.txt") for name in ("serving", "learning", "tracking", "dev")
]


def doctor() -> None:
    """Run every check; print a line each, and for a fault its cause and the command that mends it.

    Raises:
        MeadowError: a check failed.

    """
    failed: list[str] = []
    for title, check in CHECKS.items():
        if title in NEED_THE_REMOTE and "remote" in failed:
            print(f"skip  {title:9} needs the remote")
            continue
        try:
            print(f"ok    {title:9} {check()}", flush=True)
        except MeadowError as error:
            failed.append(title)
            print(f"FAIL  {title:9} {error}", flush=True)
    if failed:
        raise MeadowError(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}.")


def git() -> str:
    """Find Git, a repository, and an author for commits, which experiments are."""
    for arguments, advice in (
        (["--version"], "Install Git."),
        (["rev-parse", "HEAD"], "Run this in a clone of the project, or `git init` and commit."),
        (["config", "user.email"], "Run `git config user.email YOU@EXAMPLE.ORG`."),
        (["config", "user.name"], "Run `git config user.name YOU`."),
    ):
        try:
            dvc_git.git(*arguments)
        except MeadowError as error:
            if "safe.directory" in str(error):  # Git says itself what mends a doubtful owner
                raise
            raise MeadowError(f"`git {' '.join(arguments)}` failed. {advice}") from None
    return dvc_git.git("--version").removeprefix("git version ")


def packages() -> str:
    """Compare what is installed with what is pinned; the locked ones matter if they are there."""
    if not CONSTRAINTS.exists():
        raise MeadowError(f"there is no {CONSTRAINTS}. Run this in a clone.")
    direct = {name: pin for group in GROUPS for name, pin in pins(group).items()}
    others = []
    for name, pin in (pins(CONSTRAINTS) | direct).items():
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing" if name in direct else pin
        if installed != pin:
            others.append(f"{name} {installed}, pinned {pin}")
    if others:
        raise MeadowError(f"{'; '.join(others)}. Run `pip install -r requirements.txt`.")
    return f"{len(direct)} and what they need, as pinned"


def pins(path: Path) -> dict[str, str]:
    """Read the `name==version` lines of a file: versions by canonical name."""
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    pairs = (line.partition("==")[::2] for line in lines if "==" in line)
    return {canonicalize_name(name): pin for name, pin in pairs}


def keys() -> str:
    """Make sure that keys are neither in Git nor readable by others."""
    for path in (Path(".dvc/config"), Path(".dvc/config.local.example")):
        if not path.exists():
            continue
        for section, settings in ConfigObj(str(path), encoding="utf-8").items():
            if settings.get("secret_access_key", "...") != "...":
                raise MeadowError(
                    f"{path} is in Git and has the key of {section} in it. Move the line to"
                    f" {LOCAL}, and have the server's owner make another key."
                )
    if not LOCAL.exists():
        return f"no {LOCAL}"
    if LOCAL.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise MeadowError(f"others can read {LOCAL}. Run `chmod 600 {LOCAL}`.")
    return f"{LOCAL}, for its owner only"


def cache() -> str:
    """Hash every object in DVC's cache; what a killed command left half-written is no damage."""
    folder = dvc_objects.cache()
    if bad := dvc_objects.damaged(folder):
        raise MeadowError(f"{len(bad)} damaged. Run `{_rm(bad)}`, then `dvc pull`.")
    whole = f"{len(dvc_objects.names(folder))} objects are whole"
    if left := dvc_objects.leftovers(folder):
        whole += f"; a killed command left {len(left)} unfinished. Run `{_rm(left)}` if DVC is idle"
    return whole


def computed() -> str:
    """Tell what Meadow's own cache takes, and its limit."""
    sizes = ", ".join(f"{kind} {size / GB:.1f}" for kind, size in own_cache.sizes().items())
    return (
        f"{sizes or 'nothing'} GB in {own_cache.root()}; at most {own_cache.limit() / GB:g} of"
        f" {', '.join(own_cache.COMPUTED)} (MEADOW_CACHE_LIMIT), and no harm to remove"
    )


def disk() -> str:
    """Make sure that there is room for another version."""
    free = shutil.disk_usage(".").free
    if free < FREE:
        raise MeadowError(
            f"{free / 2**20:.0f} MiB free, too little for another version. Make room: after `make"
            " share`, `dvc gc --all-commits --all-experiments --not-in-remote` removes from the"
            " cache what the remote has, or no commit and no experiment uses."
        )
    return f"{free / 2**30:.0f} GiB free"


def reach() -> str:
    """Find the remote's server, its bucket, and the right to read it."""
    store = Remote.load()
    store.read()
    return f"{store.name}: {store.where}"


def write() -> str:
    """Write, read and delete an object."""
    Remote.load().write()
    return "a probe was written, read and deleted"


def clock() -> str:
    """Compare clocks; S3 refuses signatures of another time."""
    return Remote.load().refuse_skew()


def _rm(paths: Sequence[Path]) -> str:
    return shlex.join(["rm", "-f", *map(str, paths)])


CHECKS = {
    "Git": git,
    "packages": packages,
    "keys": keys,
    "cache": cache,
    "computed": computed,
    "disk": disk,
    "remote": reach,
    "write": write,
    "clock": clock,
}
NEED_THE_REMOTE = ("write", "clock")
