"""Packages that a bench needs beside Meadow's environment."""

import hashlib
import subprocess
from pathlib import Path

from meadow.pipeline import atomic, cache


def installed(requirements: Path) -> Path:
    """Return a folder, in the cache, of the packages that a file lists, without what they need."""
    name = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    folder = cache.folder("rivals") / name
    if not folder.exists():
        with atomic.whole(folder) as part:
            command = ["uv", "pip", "install", "--no-deps", "--target", str(part)]
            subprocess.run([*command, "-r", str(requirements)], check=True)
    return folder
