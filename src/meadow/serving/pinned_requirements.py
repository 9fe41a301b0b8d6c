"""Groups of pinned requirements, and all that a group brings along."""

from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from meadow.errors import MeadowError

CONSTRAINTS = Path("requirements/constraints.txt")
GROUPS = [
    Path("requirements", f"{name}.txt") for name in ("serving", "learning", "tracking", "dev")
]


def pins(path: Path) -> dict[str, str]:
    """Read the `name==version` lines of a file: versions by canonical name."""
    found: dict[str, str] = {}
    for line in path.read_text("utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if "==" in text:
            name, _, version = text.partition("==")
            found[canonicalize_name(name)] = version
    return found


def locked(group: Path) -> list[str]:
    """Return the pins of a group and of all that it brings along, `name==version`, sorted.

    What brings along what is read from the installed packages, the versions from
    requirements/constraints.txt.

    Raises:
        MeadowError: a package is not pinned there.

    """
    versions = pins(CONSTRAINTS) | pins(group)
    wanted = [Requirement(f"{name}=={version}") for name, version in pins(group).items()]
    seen: dict[str, str] = {}
    done = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        if name not in versions:
            raise MeadowError(f"{name} is not pinned in {CONSTRAINTS}. Run `make lock`.")
        seen[name] = versions[name]
        for text in requires(name) or []:
            below = Requirement(text)
            if below.marker is None or any(
                below.marker.evaluate({"extra": extra}) for extra in extras | {""}
            ):
                wanted.append(below)
    return sorted(f"{name}=={version}" for name, version in seen.items())
