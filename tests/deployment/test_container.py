"""The image of the service, built and run by a real engine."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from clones import ROOT, attempt, runner
from engine import BASE, PATH, docker, engine
from servers import meadow

from meadow.pipeline.ports import answers, free_port
from meadow.serving.parent import kill_with_parent
from meadow.storage import go_tools

FILE = ROOT / "deploy/Dockerfile"
SERVING = (ROOT / "docs/serving.md").read_text("utf-8")
LARGEST = 270  # MB that Meadow adds to its base
PAGE = (ROOT / "docs/operating.md").read_text("utf-8").replace("\\\n", "")
# Of the command of the page; but without a network, as the engine has none.
(RUN,) = re.findall(r"^docker run --detach (.*) --publish \S+ meadow:\S+$", PAGE, re.MULTILINE)


@dataclass(frozen=True)
class Image:
    """An image that `meadow image` has built.

    Attributes:
        host: of the engine.
        project: that it is of.
        tags: as they were printed.

    """

    host: str
    project: Path
    tags: list[str]

    def inspect(self) -> dict[str, Any]:
        return dict(json.loads(docker(self.host, "image", "inspect", self.tags[0]))[0])


def test_hadolint_has_nothing_to_say() -> None:
    """Not even a hint."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FILE], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_by_its_digest() -> None:
    """And both stages are of it."""
    text = FILE.read_text()
    pinned = r"^ARG BASE=python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}$"

    assert re.search(pinned, text, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BASE}", "${BASE}"]


@pytest.mark.slow
def test_a_bento_that_is_not_of_head_is_refused(first_run: Path, tmp_path: Path) -> None:
    """Its labels would name the wrong revision."""
    project = shutil.copytree(first_run, tmp_path / "project", symlinks=True)
    description = project / "models/bento/bento.yaml"
    text = description.read_text()
    version = yaml.safe_load(text)["version"]
    description.unlink()  # DVC may have made it read-only
    description.write_text(text.replace(version, "another"))
    done = attempt(project, *meadow("image"))

    assert done.returncode == 1
    assert f"is version another, that of HEAD is {version}. Run `dvc checkout`" in done.stderr


def _build(project: Path, host: str, *options: str) -> list[str]:
    done = attempt(
        project, *meadow("image", "--", f"--build-arg=BASE={BASE}", "--network=host", *options),
        DOCKER_HOST=host, PATH=PATH,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def image(first_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """Build the image of a small project whose model is released."""
    project = shutil.copytree(first_run, tmp_path_factory.mktemp("project"), dirs_exist_ok=True)
    runner(project)("gto", "register", "classifier", "HEAD", "--version", "v1.2.0")
    with engine(tmp_path_factory.mktemp("engine")) as host:
        yield Image(host, project, _build(project, host))


@pytest.mark.slow
def test_tags_and_labels_say_what_is_in_it(image: Image) -> None:
    """Bento's version and release; revision, licence and the model's SHA-256."""
    bento = yaml.safe_load((image.project / "models/bento/bento.yaml").read_text())
    labels = image.inspect()["Config"]["Labels"]
    provenance = json.loads((image.project / "reports/provenance.json").read_text())

    assert image.tags == [f"meadow:{bento['version']}", "meadow:v1.2.0"]
    assert {name.removeprefix("org.opencontainers.image."): labels[name] for name in labels} == {
        "title": "Meadow",
        "licenses": "Apache-2.0",
        "revision": runner(image.project)("git", "rev-parse", "HEAD").strip(),
        "version": "v1.2.0",
        "meadow.model.sha256": provenance["SHA-256 of model.onnx"],
    }


@pytest.mark.slow
def test_the_same_bento_gives_the_same_layers(image: Image) -> None:
    """Built anew, from nothing: no time stamp, no hash seed."""
    layers = image.inspect()["RootFS"]["Layers"]
    _build(image.project, image.host, "--no-cache")

    assert image.inspect()["RootFS"]["Layers"] == layers


@pytest.mark.slow
def test_it_holds_what_it_needs_and_no_more(image: Image) -> None:
    """No PyTorch, no DVC, no installer; the SBOM lists what is installed; its size is bounded."""
    run = ("run", "--rm", "--network=none", image.tags[0])
    sbom = json.loads(docker(image.host, *run, "cat", "/venv/sbom.cdx.json"))
    parts = sbom["components"]
    listed = {part["name"].lower().replace("_", "-"): part["version"] for part in parts}
    text = (ROOT / "requirements/serving.lock.txt").read_text()
    sizes = [
        json.loads(docker(image.host, "image", "inspect", name))[0]["Size"]
        for name in (image.tags[0], BASE)
    ]

    assert sbom["bomFormat"] == "CycloneDX"
    assert {f"{name}=={version}" for name, version in listed.items()} == set(text.lower().split())
    assert not {"torch", "torchvision", "dvc", "onnx", "pip", "setuptools", "uv"} & {*listed}
    assert sizes[0] - sizes[1] < LARGEST * 10**6


@pytest.fixture
def container(image: Image) -> Iterator[str]:
    """Run the image as docs/operating.md does, without any network."""
    options = (*shlex.split(RUN), "--network=none", "--health-interval=1s")
    name = docker(image.host, "run", "--detach", *options, image.tags[0])
    yield name
    docker(image.host, "rm", "--force", name)


def _inspect(image: Image, container: str) -> dict[str, Any]:
    return dict(json.loads(docker(image.host, "container", "inspect", container))[0])


def _healthy(image: Image, container: str) -> list[str]:
    """Wait until the health check says so; return a command that runs others beside it."""
    end = time.monotonic() + 120
    while (state := _inspect(image, container)["State"])["Health"]["Status"] != "healthy":
        assert state["Running"], docker(image.host, "logs", container)
        assert time.monotonic() < end, state
        time.sleep(0.2)
    return ["nsenter", f"--net=/proc/{state['Pid']}/ns/net"]


@pytest.mark.slow
def test_it_answers_as_evaluate_says_without_any_right(image: Image, container: str) -> None:
    """Read-only, user 1000, no capability, no network, with limits of memory and CPU."""
    beside = _healthy(image, container)
    status = docker(image.host, "exec", container, "cat", "/proc/1/status")
    with (image.project / "reports/predictions.csv").open(newline="") as file:
        records = list(csv.DictReader(file))
    done = attempt(
        image.project, *beside, *meadow("predict", "--url", "http://127.0.0.1:3000", "--json"),
        *(f"data/raw/{record['path']}" for record in records),
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines()]

    assert re.findall(r"^(?:Uid|CapEff|CapBnd|NoNewPrivs):\s+(\S+)", status, re.MULTILINE) == [
        "1000", "0000000000000000", "0000000000000000", "1"
    ]  # fmt: skip
    assert len(answers) == len(records) > 0, done.stderr
    for answer, record in zip(answers, records, strict=True):
        for name, p in answer["probabilities"].items():
            assert p == pytest.approx(float(record[f"p({name})"]), abs=1e-6)


@pytest.mark.slow
def test_sigterm_under_load_loses_nothing(image: Image, container: str) -> None:
    """What was sent before is answered; then it ends, with status 0."""
    beside = _healthy(image, container)
    photo = next((image.project / "data/raw").rglob("*.jpg"))
    command = [*beside, sys.executable, str(ROOT / "tests/load.py"), str(photo)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
        time.sleep(3)
        stopped = time.monotonic()
        docker(image.host, "stop", "--time=30", container)
        requests = [json.loads(line) for line in load.communicate()[0].splitlines()]
    before = [answer["status"] for answer in requests if answer["sent"] < stopped]

    assert len(before) > 20
    assert set(before) == {200}
    assert _inspect(image, container)["State"]["ExitCode"] == 0


@pytest.mark.slow
def test_compose_brings_it_up_healthy(image: Image, tmp_path: Path) -> None:
    """With the keys of `make env`; here without the port, as the engine has no networks."""
    project, alone = image.project, tmp_path / "alone.yaml"
    runner(project)(sys.executable, "-m", "meadow.deployment.env_file")
    alone.write_text("services: {service: {network_mode: none, ports: !reset []}}\n")
    (line,) = re.findall(r"^docker compose (.* up .*)$", PAGE, re.MULTILINE)
    before, _, after = line.partition(" up ")
    options = (*shlex.split(before), f"--file={alone}")
    program = str(go_tools.binary("docker-compose"))

    def compose(*arguments: str) -> subprocess.CompletedProcess[str]:
        return attempt(project, program, *options, *arguments, DOCKER_HOST=image.host)

    try:
        up = compose("up", *shlex.split(after))
        states = compose("ps", "--format=json").stdout
    finally:
        compose("down")

    assert up.returncode == 0, up.stderr
    assert json.loads(states)["Health"] == "healthy"


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

    assert "route: /predict/batch" in (image / "bento.yaml").read_text()
    assert "COPY --chown=bentoml:bentoml . ./" in recipe
    assert "pip install -r $BENTO_PATH/env/python/requirements.txt" in recipe
    assert {"bentoml", "fastapi", "onnxruntime"} <= set(re.findall(r"^[\w-]+", needed, re.M))
    process = subprocess.Popen(
        ["bash", "env/docker/entrypoint.sh", "serve", "--host", "127.0.0.1"],
        cwd=image, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=kill_with_parent,
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
