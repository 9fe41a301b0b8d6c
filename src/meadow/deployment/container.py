"""The image of the service, with the tags and labels that say what is in it."""

import hashlib
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import yaml

from meadow.errors import MeadowError
from meadow.experiments import registry
from meadow.serving import server
from meadow.storage import dvc_git

FILE = Path("deploy/Dockerfile")
MODEL_LABEL = "meadow.model.sha256"


def build(name: str, options: Sequence[str]) -> None:
    """Build the image over models/bento, and print its tags: the Bento's version, the releases.

    Args:
        name: of the image, such as ghcr.io/someone/meadow.
        options: of `docker build`, such as --build-arg BASE=...

    Raises:
        MeadowError: there is no Bento, it is not that of HEAD, or it fails.

    """
    version = _version()
    revision = dvc_git.git("rev-parse", "HEAD")
    releases = [known.name for known in registry.versions() if known.commit == revision]
    model = server.BENTO / "src/models/classifier/model.onnx"
    labels = {
        "org.opencontainers.image.title": "Meadow",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.version": releases[0] if releases else version,
        MODEL_LABEL: hashlib.sha256(model.read_bytes()).hexdigest(),
    }
    names = [f"{name}:{tag}" for tag in (version, *releases)]
    command = ["docker", "build", f"--file={FILE}", *options]
    command += [f"--label={label}={value}" for label, value in labels.items()]
    command += [f"--tag={tag}" for tag in names]
    try:
        done = subprocess.run(
            [*command, str(server.BENTO)],
            env={**os.environ, "DOCKER_BUILDKIT": "1"},
            check=False,
        )
    except FileNotFoundError:
        raise MeadowError(
            "there is no `docker` on PATH. Install Docker (https://docs.docker.com/engine/install)."
        ) from None
    if done.returncode:
        raise MeadowError("`docker build` failed; the lines above say why.")
    print("\n".join(names))


def _version() -> str:
    """Return the version of the Bento, if it is that of HEAD and whole."""
    try:
        description = yaml.safe_load((server.BENTO / "bento.yaml").read_text("utf-8"))
    except FileNotFoundError:
        raise MeadowError(f"there is no {server.BENTO}. Run `dvc pull` or `dvc repro`.") from None
    version = str(description["version"])
    committed = json.loads(dvc_git.git("show", "HEAD:metrics/package.json"))["version"]
    if version != committed:
        raise MeadowError(
            f"{server.BENTO} is version {version}, that of HEAD is {committed}. Run `dvc checkout`"
            " to have that one, or `git commit -a` after `dvc repro`."
        )
    if any(path.is_symlink() for path in server.BENTO.rglob("*")):
        raise MeadowError(
            f"{server.BENTO} has links into DVC's cache, which Docker would copy as links. Run"
            f" `dvc unprotect {server.BENTO}`."
        )
    return version
