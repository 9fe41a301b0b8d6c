"""A Docker engine of the tests' own, and a stand-in for the base image, which no registry serves.

It needs root and Debian's docker.io; the folder of its data, its socket and its processes end with
the tests. Its containers have the machine's network or none.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools import need

from meadow.pipeline import atomic, cache
from meadow.serving.parent import end_with_parent

# Debian's client, beside its engine: another may lack what it needs for a build
PATH = f"/usr/bin:{os.environ['PATH']}"
BASE = "meadow-base"  # Debian's Python, where the Dockerfile has Docker's
DEBIAN = "bookworm"
_MMDEBSTRAP = (
    "mmdebstrap", "--quiet", "--variant=minbase", "--format=tar",
    "--include=python3,python3-venv,ca-certificates,tzdata",
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
    # pip trusts what this machine trusts
    "--customize-hook=cp /etc/ssl/certs/ca-certificates.crt $1/etc/ssl/certs/",
    r'--customize-hook=printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n"'
    " > $1/etc/pip.conf",
    "--customize-hook=ln -s /usr/bin/python3 $1/usr/local/bin/python",
    "--customize-hook=rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/*",
)  # fmt: skip


@contextmanager
def engine(folder: Path) -> Iterator[str]:
    """Run dockerd with its data in a folder; yield the value of DOCKER_HOST."""
    need("container engine")
    host = f"unix://{folder}/docker.sock"
    settings = {
        "bridge": "none", "iptables": False, "ip6tables": False, "ip-forward": False,
        "data-root": f"{folder}/data", "exec-root": f"{folder}/exec",
        "pidfile": f"{folder}/docker.pid", "hosts": [host], "features": {"buildkit": True},
    }  # fmt: skip
    (folder / "daemon.json").write_text(json.dumps(settings))
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(
            # what it mounts goes with it, even where it is killed
            ["unshare", "--mount", "dockerd", "--config-file", folder / "daemon.json"],
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,
        )
    try:
        end = time.monotonic() + 60
        while subprocess.run(
            ["docker", "info"], env={**os.environ, "DOCKER_HOST": host, "PATH": PATH},
            check=False, capture_output=True,
        ).returncode:  # fmt: skip
            assert daemon.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        changes = ("ENV PATH=/usr/local/bin:/usr/bin:/bin", "ENV LANG=C.UTF-8", 'CMD ["python3"]')
        options = [f"--change={change}" for change in changes]
        docker(host, "import", *options, str(_base()), BASE)
        yield host
    finally:
        daemon.terminate()
        daemon.wait()


def docker(host: str, *arguments: str) -> str:
    """Run a command of Docker and return what it prints."""
    done = subprocess.run(
        ["docker", *arguments], env={**os.environ, "DOCKER_HOST": host, "PATH": PATH},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def _base() -> Path:
    path = cache.folder("base-image") / f"{DEBIAN}.tar"
    if not path.exists():
        with atomic.whole(path) as part:
            subprocess.run([*_MMDEBSTRAP, DEBIAN, part], check=True)
    return path


if __name__ == "__main__":
    _base()
