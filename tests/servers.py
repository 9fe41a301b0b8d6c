"""A real MinIO server that tests may kill, and a small project that keeps its data there."""

import atexit
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from clones import ROOT, runner
from configobj import ConfigObj
from minio import MinioAdmin
from minio.credentials.providers import StaticProvider
from tools import need

from meadow.serving.parent import end_with_parent
from meadow.storage import go_tools

KEY, SECRET = "meadow-test", "of-a-server-that-ends-with-the-test"
BUCKET = "meadow"


class Server:
    """MinIO on a free port of the loopback.

    Attributes:
        data: its folder.
        certificates: the folder of those that it serves HTTPS with.
        inside: a command that runs the server's command, its last arguments.
        environment: more variables, MinIO's settings.
        endpoint: its URL.

    """

    def __init__(
        self,
        data: Path,
        certificates: Path | None = None,
        inside: Sequence[str] = (),
        **environment: str,
    ) -> None:
        need("Go")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.data = data
        self.certificates = certificates
        self.inside = inside
        self.environment = environment
        self.address = f"127.0.0.1:{port}"
        self.endpoint = f"{'https' if certificates else 'http'}://{self.address}"
        self.start()

    def start(self) -> None:
        """Start it, or start it again, and wait until it answers."""
        command = [str(go_tools.binary("minio")), "server", "--quiet", "--address", self.address]
        if self.certificates:
            command += ["--certs-dir", str(self.certificates)]
        self.process = subprocess.Popen(
            [*self.inside, *command, str(self.data)],
            env={
                **os.environ,
                "MINIO_ROOT_USER": KEY,
                "MINIO_ROOT_PASSWORD": SECRET,
                **self.environment,
            },
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=end_with_parent,
        )  # fmt: skip
        context = ssl._create_unverified_context()  # noqa: S323
        end = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", context=context)
                return
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.05)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def client(self, **settings: Any) -> Any:
        """Return an S3 client, independent of Meadow and DVC."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            **{"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, **settings},
        )

    def admin(self) -> MinioAdmin:
        """Return a client for users and quotas."""
        return MinioAdmin(
            endpoint=self.address, credentials=StaticProvider(KEY, SECRET), secure=False
        )

    def objects(self) -> dict[str, int]:
        """List the bucket: sizes by key."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", [])}


def small_project(folder: Path, endpoint: str, files: int = 20) -> Path:
    """Make a project of DVC with some files, one stage, one commit, and a server as its remote."""
    shutil.copytree(_template(files), folder)
    point(folder, endpoint)
    return folder


@cache
def _template(files: int) -> Path:
    """Make it once for all tests: the commands of DVC take 4 s."""
    folder = Path(tempfile.mkdtemp(prefix="meadow-template-"))
    atexit.register(shutil.rmtree, folder)
    (folder / "data/raw").mkdir(parents=True)
    for i in range(files):
        (folder / f"data/raw/{i}.txt").write_text(f"the content of file {i}")
    (folder / "dvc.yaml").write_text(
        "stages: {train: {cmd: 'cat data/raw/* > model', deps: [data/raw], outs: [model]}}\n"
    )
    run = runner(folder)
    run("git", "init", "-q", "-b", "main")
    run("dvc", "init", "-q")
    shutil.copy(ROOT / ".dvc/config", folder / ".dvc/config")
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    run("dvc", "add", "-q", "data/raw")
    run("dvc", "repro", "-q")
    run("git", "add", "-A")
    run("git", "commit", "-qm", "first")
    return folder


def point(folder: Path, endpoint: str, key: str = KEY, secret: str = SECRET) -> None:
    """Write endpoint and keys of a project's remote into its .dvc/config.local."""
    config = ConfigObj(str(folder / ".dvc/config.local"), encoding="utf-8")
    config['remote "minio"'] = {
        "endpointurl": endpoint,
        "access_key_id": key,
        "secret_access_key": secret,
    }
    config.write()


def meadow(*arguments: str) -> tuple[str, ...]:
    """Return the command line of Meadow."""
    return ("python", "-c", "from meadow.cli import main; main()", *arguments)
