"""DVC's settings of this machine alone, in a file that is never in Git; keys above all."""

from pathlib import Path

from configobj import ConfigObj

from meadow.pipeline import atomic

LOCAL = Path(".dvc/config.local")


def section_of(name: str) -> str:
    """Return the name of a remote's section in DVC's configuration."""
    return f'remote "{name}"'


def configure(section: str, **settings: str) -> None:
    """Write settings into a section of `LOCAL`; nobody but its owner may read it."""
    config = ConfigObj(str(LOCAL), encoding="utf-8")
    config[section] = {**config.get(section, {}), **settings}
    with atomic.whole(LOCAL) as part:
        part.touch(0o600)
        with part.open("wb") as file:
            config.write(file)
