"""The keys that Docker Compose reads."""

import stat
from pathlib import Path

import pytest
from clones import ROOT, runner

from meadow.deployment import env_file
from meadow.errors import MeadowError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deploy").mkdir()
    Path("metrics").mkdir()
    env_file.PACKAGED.write_text('{"version": "one"}')


def values() -> dict[str, str]:
    return dict(line.split("=", 1) for line in env_file.FILE.read_text().splitlines())


def test_keys_are_random_and_for_their_owner_alone() -> None:
    """None is a default that somebody could know."""
    env_file.write()
    first = values()
    env_file.FILE.unlink()
    env_file.write()

    assert stat.S_IMODE(env_file.FILE.stat().st_mode) == 0o600
    for name in env_file.SECRETS:
        assert len(first[name]) >= 32
        assert values()[name] != first[name]


def test_a_second_call_keeps_keys_and_brings_the_version() -> None:
    """What runs with the keys runs on; what the user added stays."""
    env_file.write()
    first = values()
    with env_file.FILE.open("a") as file:
        file.write("MEADOW_PORT=3001\n")
    env_file.PACKAGED.write_text('{"version": "two"}')
    env_file.write()

    assert values() == {**first, "MEADOW_PORT": "3001", "MEADOW_VERSION": "two"}


def test_before_a_run_there_is_nothing_to_name() -> None:
    env_file.PACKAGED.unlink()
    with pytest.raises(MeadowError, match="Run `dvc repro`, then `make image`"):
        env_file.write()

    assert not env_file.FILE.exists()


def test_git_never_takes_it() -> None:
    """It holds keys."""
    assert runner(ROOT)("git", "check-ignore", str(env_file.FILE)) == f"{env_file.FILE}\n"
