"""The Dockerfile, where there is no Docker: linted, and its steps run in a fresh environment.

What `bentoml containerize` gives to Docker is looked at too, and served.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import NAMESPACE

from meadow.pipeline.ports import answers, free_port
from meadow.serving import server

ROOT = Path(__file__).parents[1]
FILE = ROOT / "deploy/Dockerfile"
SERVING = (ROOT / "docs/serving.md").read_text("utf-8")
TEXT = re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
STEPS = [line.partition(" ")[::2] for line in TEXT.splitlines() if line]
LARGEST = 300  # MB


def steps(kind: str) -> list[str]:
    return [text.strip() for name, text in STEPS if name == kind]


def test_hadolint_has_nothing_to_say() -> None:
    """Not even a hint."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_last_stage_is_lean_and_humble() -> None:
    """It has no step that could add a compiler, its base is pinned, its user is not root."""
    last = STEPS[max(i for i, (name, _) in enumerate(STEPS) if name == "FROM") :]

    assert all("@sha256:" in base for base in steps("FROM"))
    assert len({base.partition(" ")[0] for base in steps("FROM")}) == 1
    assert "RUN" not in [name for name, _ in last]
    assert ("USER", "1000:1000") in last
    assert "/readyz" in dict(last)["HEALTHCHECK"]


@pytest.fixture(scope="module")
def image(packaged: Path) -> Iterator[Path]:
    """Do what the Dockerfile says in a folder that stands for the image's root."""
    # not in /tmp, which the container hides under a tmpfs
    with tempfile.TemporaryDirectory(dir="/var/tmp") as temporary:
        root = Path(temporary)
        root.chmod(0o755)
        for text in steps("COPY"):
            *options, source, target = text.split()
            if not options:
                place = root / target.strip("/")
                if (packaged / server.BENTO / source).is_dir():
                    shutil.copytree(packaged / server.BENTO / source, place, dirs_exist_ok=True)
                else:
                    shutil.copy(packaged / server.BENTO / source, place)
        for step in steps("RUN"):
            step = re.sub(r"--mount=\S+", "", step)  # BuildKit's
            subprocess.run(["sh", "-ec", moved(step, root)], check=True, capture_output=True)
        subprocess.run(["chmod", "-R", "a+rX", root], check=True)
        yield root


def moved(text: str, root: Path) -> str:
    """Have the paths of the image lie under another root."""
    return re.sub(r"/(venv|bento|requirements\.txt)\b", rf"{root}/\1", text)


@pytest.mark.slow
def test_the_environment_has_what_it_needs_and_no_more(image: Path) -> None:
    """No PyTorch, no DVC, no installer; its size is bounded."""
    packages = {entry.name.lower() for entry in (image / "venv").glob("lib/*/site-packages/*")}
    size = sum(file.lstat().st_size for file in (image / "venv").rglob("*") if file.is_file())

    assert {"bentoml", "onnxruntime", "pil", "numpy"} <= packages
    assert not {"torch", "torchvision", "dvc", "onnx", "pip", "setuptools", "uv"} & packages
    assert size < LARGEST * 10**6


@pytest.mark.slow
@pytest.mark.needs("mount namespaces")
def test_it_serves_as_nobody_with_a_read_only_root(image: Path, tmp_path: Path) -> None:
    """The command, the environment, the user and the health check are those of the Dockerfile."""
    ours = shlex.split(moved(" ".join(steps("ENV")), image))
    environment = dict(text.split("=", 1) for text in ours)
    environment["PATH"] = environment["PATH"].replace("$PATH", "/usr/bin:/bin")
    command = json.loads(moved(steps("CMD")[0], image))
    port = str(free_port())
    command[command.index("--port") + 1] = port
    (health,) = re.findall(r"CMD (\[.*\])", steps("HEALTHCHECK")[0])
    check = json.loads(health.replace(":3000", f":{port}"))
    user, group = steps("USER")[0].split(":")
    # a user without root serves as himself: he may become nobody else
    become = "" if os.getuid() else f"--reuid {user} --regid {group} --clear-groups"
    # The Python of the tests may lie where only root can look: it is shown at the same path.
    python = Path(sys.base_prefix)
    top = Path("/", python.parts[1])
    inside = (
        f"mount -t tmpfs none /tmp"
        f" && mkdir /tmp/python && mount --bind {python} /tmp/python"
        f" && if [ {top} != /usr ]; then mount -t tmpfs -o mode=755 none {top}"
        f" && mkdir -p {python} && mount --bind /tmp/python {python}; fi"
        f" && umount /tmp/python && chmod 1777 /tmp && mount -o remount,ro,bind / && cd /tmp"
        f" && exec setpriv {become} --no-new-privs"
        f" --bounding-set=-all --inh-caps=-all {shlex.join(command)}"
    )
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*NAMESPACE, "sh", "-ec", inside], env=environment, stdout=file, stderr=file
        )
    try:
        done = None
        for _ in range(600):
            done = subprocess.run(
                [image / "venv/bin/python", *check[1:]],
                env=environment, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode == 0 or process.poll() is not None:
                break
            time.sleep(0.1)
        assert done is not None
        assert done.returncode == 0, log.read_text()[-3000:] + done.stderr.decode()[-500:]
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15), log.read_text()[-3000:]


DOCKER = """#!/bin/sh
case "$*" in *version*) echo 27.0.0 ;; *build*) cp -r . "$IMAGE" ;; esac
"""


@pytest.mark.slow
def test_what_bentoml_containerize_hands_to_docker_serves(packaged: Path, tmp_path: Path) -> None:
    """By the commands of docs/serving.md: the Dockerfile copies the Bento and all its packages."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    port, image = free_port(), tmp_path / "image"
    environment = {
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin",
        "BENTOML_HOME": str(tmp_path / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "IMAGE": str(image),
        "BENTO_PATH": str(image),
        "PORT": str(port),
    }
    for command in (
        "tar -C models/bento -cJf meadow.bento .",
        'bentoml import "$PWD/meadow.bento"',
        "bentoml containerize photo_classifier",
    ):
        assert command in SERVING
        command = command.replace("models/bento", str(packaged / "models/bento"))
        subprocess.run(["sh", "-ec", command], cwd=tmp_path, env=environment, check=True)
    recipe = (image / "env/docker/Dockerfile").read_text()
    needed = (image / "env/python/requirements.txt").read_text()

    assert "COPY --chown=bentoml:bentoml . ./" in recipe
    assert "pip install -r $BENTO_PATH/env/python/requirements.txt" in recipe
    assert {"bentoml", "fastapi", "onnxruntime"} <= set(re.findall(r"^[\w-]+", needed, re.M))
    process = subprocess.Popen(
        ["bash", "env/docker/entrypoint.sh", "serve", "--host", "127.0.0.1"],
        cwd=image, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        process.terminate()
        process.wait()
