"""The folder for what can be computed again: frozen features, exported backbones, checkpoints."""

import os
from pathlib import Path


def folder(kind: str) -> Path:
    """Return the cache's folder for one kind of thing, made if need be.

    It lies outside the stages' outs and outside the repository, so that all experiments, their
    temporary workspaces and all clones share it. The environment variable MEADOW_CACHE moves it;
    removing it costs time only.
    """
    root = os.environ.get("MEADOW_CACHE")
    if root is None:
        root = str(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meadow")
    path = Path(root) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path
