"""`make minio`, with a real server."""

import fcntl
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from clones import ROOT, Run, attempt, runner
from configobj import ConfigObj
from servers import small_project
from tools import need

from meadow.errors import MeadowError
from meadow.pipeline import cache
from meadow.pipeline.ports import free_port
from meadow.storage import go_tools, minio_server

pytestmark = pytest.mark.slow
LOCAL = Path(".dvc/config.local")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """Return a project whose remote's port is free and whose keys are not made yet."""
    need("Go")
    go_tools.binary("minio")
    folder = small_project(tmp_path / "project", f"http://127.0.0.1:{free_port()}", files=3)
    config = ConfigObj(str(folder / ".dvc/config"))
    config['remote "minio"']["endpointurl"] = f"http://127.0.0.1:{free_port()}"
    config.write()
    (folder / LOCAL).unlink()
    # it outlives the command that starts it, and must not outlive a test run that is killed
    end = ["sh", "-c", "cat; kill $(cat .minio/lock)"]
    with subprocess.Popen(end, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL):
        yield folder
        meadow_minio(folder, "stop")


def meadow_minio(folder: Path, verb: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ("python", "-c", "from meadow.cli import main; main()", "minio", verb)
    binaries = str(cache.folder("minio").parent)
    return attempt(folder, *command, **{"MEADOW_CACHE": binaries, **environment})


def settings(folder: Path) -> dict[str, str]:
    return dict(ConfigObj(str(folder / LOCAL))['remote "minio"'])


def bucket(folder: Path) -> Any:
    """Return a client's view of the bucket, by the keys and the address that were written."""
    merged = ConfigObj(str(folder / ".dvc/config"))['remote "minio"'] | settings(folder)
    keys = {f"aws_{name}": merged[name] for name in ("access_key_id", "secret_access_key")}
    return boto3.resource(
        "s3", endpoint_url=merged["endpointurl"], region_name="us-east-1", **keys
    ).Bucket("meadow")


def test_a_first_start_makes_keys_and_bucket_and_a_second_changes_nothing(project: Path) -> None:
    """DVC pushes without another step; only the owner may read the keys; the log has none."""
    first = meadow_minio(project, "start")
    written = (project / LOCAL).read_text()
    second = meadow_minio(project, "start")
    runner(project)("dvc", "push")

    assert "MinIO is up at http://127.0.0.1:" in first.stdout, first.stderr
    assert "is up, with bucket 'meadow'" in second.stdout
    assert (project / LOCAL).read_text() == written
    assert stat.S_IMODE((project / LOCAL).stat().st_mode) == 0o600
    secret = settings(project)["secret_access_key"]
    assert len(secret) >= 32
    assert secret not in first.stdout + (project / ".minio/server.log").read_text()
    assert runner(project)("git", "status", "--porcelain", "--", LOCAL.as_posix()) == ""


def test_it_listens_on_the_loopback_only(project: Path) -> None:
    """The keys travel without encryption."""
    meadow_minio(project, "start")
    pid = (project / ".minio/lock").read_text()

    assert "--address\x00127.0.0.1:" in Path(f"/proc/{pid}/cmdline").read_text()


def test_a_taken_port_is_replaced_and_written_down(project: Path) -> None:
    """Beside what config.local held before."""
    (project / LOCAL).write_text("[cache]\n    type = copy\n")
    port = int(ConfigObj(str(project / ".dvc/config"))['remote "minio"']["endpointurl"][-5:])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        done = meadow_minio(project, "start")

    assert done.returncode == 0, done.stderr
    assert settings(project)["endpointurl"] != f"http://127.0.0.1:{port}"
    assert ConfigObj(str(project / LOCAL))["cache"] == {"type": "copy"}
    runner(project)("dvc", "push")


def test_after_a_crash_it_starts_again_with_keys_and_data(project: Path) -> None:
    """`kill -9`, then the same command."""
    meadow_minio(project, "start")
    bucket(project).put_object(Key="kept", Body=b"content")
    keys = settings(project)
    os.kill(int((project / ".minio/lock").read_text()), signal.SIGKILL)
    done = meadow_minio(project, "start")

    assert done.returncode == 0, done.stderr
    assert settings(project) == keys
    assert bucket(project).Object("kept").get()["Body"].read() == b"content"


def test_a_bucket_that_is_gone_is_made_again(project: Path) -> None:
    """On a running server."""
    meadow_minio(project, "start")
    bucket(project).delete()
    meadow_minio(project, "start")

    assert list(bucket(project).objects.all()) == []


def test_a_server_with_other_keys_is_not_left_running_unseen(project: Path) -> None:
    """Who lost config.local is told to stop it; then new keys open the old data."""
    meadow_minio(project, "start")
    bucket(project).put_object(Key="kept", Body=b"content")
    (project / LOCAL).unlink()
    refused = meadow_minio(project, "start")
    stopped = meadow_minio(project, "stop")
    again = meadow_minio(project, "start")

    assert refused.returncode == 1
    assert "Run `make minio-stop`" in refused.stderr
    assert "MinIO is stopped" in stopped.stdout
    assert again.returncode == 0, again.stderr
    assert bucket(project).Object("kept").get()["Body"].read() == b"content"


def test_stop_without_a_server_says_so(project: Path) -> None:
    """And is no error."""
    done = meadow_minio(project, "stop")

    assert (done.returncode, done.stdout) == (0, "No MinIO of this project runs.\n")


def test_stop_never_kills_a_stranger(project: Path) -> None:
    """While a server is being started, the lock is held, and the file names no process yet."""
    (project / ".minio").mkdir()
    with (project / ".minio/lock").open("w") as lock, subprocess.Popen(["sleep", "60"]) as stranger:
        lock.write(str(stranger.pid))  # of a server before, which has ended
        lock.flush()
        done = meadow_minio(project, "stop")
        assert (done.returncode, done.stdout) == (0, "No MinIO of this project runs.\n")
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)  # as start does before anything else
        done = meadow_minio(project, "stop")
        assert done.returncode == 1
        assert "MinIO is just being started" in done.stderr
        assert stranger.poll() is None
        stranger.kill()


def test_a_start_forgets_the_process_of_an_earlier_server(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it starts another: until then the file names nobody, whoever holds the lock."""
    monkeypatch.chdir(project)
    Path(".minio").mkdir()
    Path(".minio/lock").write_text("1")
    seen = []
    monkeypatch.setattr(minio_server, "_docker", lambda: False)
    monkeypatch.setattr(minio_server, "_binary", lambda: Path("minio"))
    monkeypatch.setattr(
        minio_server, "_serve", lambda *_: seen.append(Path(".minio/lock").read_text())
    )
    with pytest.raises(MeadowError, match="nothing answers"):
        minio_server.start()

    assert seen == [""]


def test_a_remote_on_another_machine_is_not_started_here(project: Path) -> None:
    """Its keys would be given to a local server."""
    runner(project)(
        "dvc", "remote", "modify", "--local", "minio", "endpointurl", "http://minio.invalid:9000"
    )
    done = meadow_minio(project, "start")

    assert done.returncode == 1
    assert "`make minio` starts a server on 127.0.0.1 only" in done.stderr
    assert not (project / ".minio/data").exists()


@pytest.fixture
def docker(tmp_path: Path, project: Path) -> Run:
    """Stand in for Docker, which cannot run here: Compose's arguments, and a real MinIO."""
    tools = tmp_path / "tools"
    tools.mkdir()
    binary = go_tools.binary("minio")
    (tools / "docker").write_text(
        f"""#!/bin/sh
echo "$*" >> {tools}/said
case "$*" in
*" up "*) {binary} server --address 127.0.0.1:$MINIO_PORT {tools}/data >/dev/null 2>&1 &
          echo $! > {tools}/pid; sleep 3;;
*" ps "*) cat {tools}/pid;;
*" down") kill $(cat {tools}/pid);;
esac
"""
    )
    (tools / "docker").chmod(0o755)

    def run(verb: str) -> str:
        done = meadow_minio(project, verb, PATH=f"{tools}:{os.environ['PATH']}")
        assert done.returncode == 0, done.stderr
        return (tools / "said").read_text()

    return run


def test_where_docker_runs_compose_brings_it_up_and_down(docker: Run, project: Path) -> None:
    """With port and keys from the environment, not from a file or the command line."""
    arguments = docker("start")
    runner(project)("dvc", "push")

    assert "compose --file deploy/compose.yaml --profile minio up --detach --wait" in arguments
    assert settings(project)["secret_access_key"] not in arguments
    assert "compose --file deploy/compose.yaml --profile minio down" in docker("stop")


def test_compose_runs_the_same_minio() -> None:
    """The version is written in two places."""
    text = (ROOT / "deploy/compose.yaml").read_text()
    service = yaml.safe_load(text)["services"]["minio"]

    assert (
        "{0.module}@{0.version}".format(go_tools.TOOLS["minio"])
        in service["build"]["dockerfile_inline"]
    )
    assert service["ports"] == ["127.0.0.1:${MINIO_PORT:-9000}:9000"]
    assert "healthcheck" in service
