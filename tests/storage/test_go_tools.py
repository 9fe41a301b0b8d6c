"""Programs that Go builds into the cache."""

from pathlib import Path

import pytest

from meadow.errors import MeadowError
from meadow.storage import go_tools


def test_a_built_program_needs_no_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is taken from the cache, by its version."""
    program = tmp_path / "minio" / go_tools.TOOLS["minio"].version / "minio"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")

    assert go_tools.binary("minio") == program
    assert capsys.readouterr().err == ""


def test_without_go_the_message_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing half-built stays."""
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MeadowError, match=r"kubectl is built by Go.*https://go\.dev/dl"):
        go_tools.binary("kubectl")

    assert [path.name for path in (tmp_path / "kubectl").iterdir()] == ["lock"]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call builds again; what Go says is shown."""
    monkeypatch.setenv("MEADOW_CACHE", str(tmp_path))
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "go").write_text("#!/bin/sh\necho 'no such module' >&2; exit 1\n")
    (tools / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    with pytest.raises(MeadowError, match="no such module"):
        go_tools.binary("kubectl")

    assert [path.name for path in (tmp_path / "kubectl").iterdir()] == ["lock"]
