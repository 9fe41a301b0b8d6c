"""Environments of programs that Meadow does not install, such as an MLflow server.

Each is made once by uv from a locked list of packages, into the cache, under the list's hash.
"""

import fcntl
import hashlib
import subprocess
import sys
from pathlib import Path

from meadow.pipeline import cache


def environment(name: str, *locks: Path) -> Path:
    """Return the folder of the programs of an environment; make it where the cache has it not."""
    content = b"".join(lock.read_bytes() for lock in locks)
    folder = cache.folder(name) / hashlib.sha256(content).hexdigest()[:16]
    with folder.with_name("lock").open("w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            uv = [sys.executable, "-m", "uv"]
            python = f"{sys.version_info.major}.{sys.version_info.minor}"
            subprocess.run([*uv, "venv", "-q", "--clear", "--python", python, folder], check=True)
            listed = [f"--requirements={lock}" for lock in locks]
            into = f"--python={folder}/bin/python"
            # the certificates that this machine trusts, as pip does
            install = ["pip", "install", "-q", "--system-certs", into, *listed]
            subprocess.run([*uv, *install], check=True)
            (folder / "made").touch()
    return folder / "bin"
