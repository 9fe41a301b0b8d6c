"""Releases on a whole Kubernetes of one node: rollouts, rollbacks, bad versions, faults, scaling.

`make test-cluster` runs it, as root, in ten minutes; it needs Debian's docker.io, mmdebstrap,
etcd-server, containernetworking-plugins and conntrack, and Go, which builds Kubernetes once. All
lives in a network namespace and a temporary folder. A check that fails ends it with status 1.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from clones import runner, toy_clone
from engine import BASE, docker, engine
from engine import PATH as ENGINE_PATH
from node import REGISTRY, Node, node
from PIL import Image
from servers import BUCKET, Server, meadow, point

from meadow.storage import go_tools

# A pod has 0.4 of a core, so that load does not take what starts and stops pods on two cores; the
# autoscaler adds pods from 0.35 on.
OVERLAY = f"""
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: meadow-prod
resources: [../../base]
images: [{{name: meadow, newName: {REGISTRY}/meadow}}]
patches:
  - target: {{kind: HorizontalPodAutoscaler}}
    patch: |-
      - {{op: replace, path: /spec/maxReplicas, value: 4}}
      - {{op: replace, path: /spec/metrics/0/resource/target/averageUtilization, value: 350}}
  - target: {{kind: Deployment}}
    patch: |-
      - {{op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 100m}}
      - {{op: replace, path: /spec/template/spec/containers/0/resources/limits/cpu, value: 400m}}
"""
PROBLEMS: list[str] = []
TRIAL = ("--override", "a trial")  # the gate refuses toy models
SPACE = "--namespace=meadow-prod"
STABLE = "--selector=app.kubernetes.io/name=meadow,track=stable"
SLOW = """

import time

_classify = classify


def classify(*arguments):
    time.sleep(0.5)
    return _classify(*arguments)
"""


class Project:
    """A toy project with a version of its model in prod, and another one to be released."""

    def __init__(self, folder: Path, host: str, cluster: Node) -> None:
        self.folder, self.host, self.cluster = folder, host, cluster
        toy_clone(folder)
        (folder / "deploy/kubernetes/overlays/prod/kustomization.yaml").write_text(OVERLAY)
        self.run = runner(folder)
        storage = Server(folder.with_name("minio"))
        storage.client().create_bucket(Bucket=BUCKET)
        point(folder, storage.endpoint)
        origin = str(folder.with_name("origin"))
        self.run("git", "init", "-q", "--bare", "-b", "main", origin)
        self.run("git", "remote", "add", "origin", origin)
        self.run("git", "push", "-q", "-u", "origin", "main")
        self.commit("first")
        tell("image of v1.0.0, built cold", f"{self.release('v1.0.0'):.1f} s")
        self.run("dvc", "exp", "run", "-S", "train.finetune.epochs=4")
        self.commit("second")

    def commit(self, message: str) -> None:
        """Commit and push all that lies there."""
        self.run("git", "commit", "-q", "--allow-empty", "-am", message)
        self.run(*meadow("share"))
        self.run("git", "push", "-q")

    def release(self, version: str) -> float:
        """Release HEAD and put it into prod, with its image; return the seconds of the build."""
        self.run(*meadow("release", "--minor", *TRIAL))
        began = time.monotonic()
        options = (f"--build-arg=BASE={BASE}", "--network=host")
        self.run(*meadow("image", "--", *options), DOCKER_HOST=self.host, PATH=ENGINE_PATH)
        seconds = time.monotonic() - began
        self.push(f"meadow:{version}", version)
        self.run(*meadow("promote", version, "--to", "prod", *TRIAL))
        self.run("git", "checkout", "-q", "metrics/released.csv")
        return seconds

    def register(self, version: str) -> None:
        """Make a commit with the content of HEAD a version."""
        self.run("git", "commit", "-q", "--allow-empty", "-m", version)
        self.run("gto", "register", "classifier", "HEAD", "--version", version)

    def push(self, image: str, version: str) -> None:
        """Push an image under the name of a version."""
        archive = self.folder.parent / "image.tar"
        docker(self.host, "save", f"--output={archive}", image)
        self.cluster.push(archive, f"meadow:{version}")
        archive.unlink()

    def spoil(self, version: str, file: str, content: bytes) -> None:
        """Push the image of v1.1.0 with one file of its Bento replaced, as a version of HEAD."""
        context = self.folder.parent / version
        context.mkdir()
        (context / "file").write_bytes(content)
        text = f"FROM meadow:v1.1.0\nCOPY --chmod=644 file /bento/src/{file}\n"
        (context / "Dockerfile").write_text(text)
        docker(self.host, "build", "--quiet", f"--tag=meadow:{version}", str(context))
        self.register(version)
        self.push(f"meadow:{version}", version)

    def deploy(self, watch: float = 5) -> str:
        """Deploy what is in prod; return why it was refused, or nothing."""
        done = subprocess.run(
            [*self.cluster.net, *meadow("deploy", "--stage=prod", f"--watch={watch}")],
            cwd=self.folder, check=False, capture_output=True, text=True,
            env=self.cluster.environment() | {"PYTHONPATH": str(self.folder / "src")},
        )  # fmt: skip
        return done.stderr if done.returncode else ""


def draw(path: Path) -> Path:
    """Draw a photo of 12 megapixels, as a phone makes them: pods are busy, and vegeta is not."""
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).resize((4000, 3000)).save(path, quality=90)
    return path


class Load:
    """Photos that vegeta sends to the Service, from inside the cluster."""

    def __init__(self, cluster: Node, photo: Path) -> None:
        address = cluster.kubectl(
            "get", "service", "meadow", SPACE, "--output=jsonpath={.spec.clusterIP}"
        ).stdout
        self.vegeta = [*cluster.net, str(go_tools.binary("vegeta"))]
        self.folder = cluster.folder
        self.targets = f"POST http://{address}/predict\n@{photo}\n"

    def send(self, seconds: float, rate: int = 0, workers: int = 8) -> dict[str, Any]:
        """Send so many a second, or of 0 as many as so many connections can; return figures."""
        attack = [*self.vegeta, "attack", f"-duration={seconds}s", f"-rate={rate}"]
        if not rate:
            attack += [f"-workers={workers}", f"-max-workers={workers}"]
        sent = subprocess.run(attack, input=self.targets.encode(), check=True, capture_output=True)
        report = [*self.vegeta, "report", "-type=json"]
        text = subprocess.run(report, input=sent.stdout, check=True, capture_output=True).stdout
        return dict(json.loads(text))

    @contextmanager
    def during(self, seconds: float, rate: int) -> Iterator[dict[str, Any]]:
        """Send so many a second for at least as long as the block lasts; fill in the figures."""
        figures: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: figures.update(self.send(seconds, rate)))
        thread.start()
        time.sleep(1)
        yield figures
        thread.join()


def failed(figures: dict[str, Any]) -> int:
    """Count the requests that were not answered with 200."""
    return sum(number for status, number in figures["status_codes"].items() if status != "200")


def lossless(what: str, figures: dict[str, Any]) -> None:
    """Require that every request was answered."""
    tell(f"{what}: failed requests of {figures['requests']}", failed(figures))
    require(not failed(figures), f"{what}: {figures['status_codes']} {figures['errors']}")


def require(condition: bool, what: str) -> None:
    """Note what is not as it has to be; the rest is tried all the same."""
    if not condition:
        print(what, file=sys.stderr, flush=True)
        PROBLEMS.append(what)


def images(cluster: Node) -> Counter[str]:
    """Count the pods of the stable track by their images."""
    text = cluster.kubectl("get", "pods", SPACE, STABLE, "--output=json").stdout
    return Counter(pod["spec"]["containers"][0]["image"] for pod in json.loads(text)["items"])


def tell(what: str, value: object) -> None:
    """Print a line of the table."""
    print(f"| {what} | {value} |", flush=True)


def main() -> None:
    """Run all of it."""
    with tempfile.TemporaryDirectory() as temporary, node() as cluster:
        top = Path(temporary)
        for name in ("project", "engine"):
            (top / name).mkdir()
        with engine(top / "engine") as host:
            project = Project(top / "project", host, cluster)
            began = time.monotonic()
            refusal = project.deploy()
            assert not refusal, refusal
            tell("first deployment, 2 pods", f"{time.monotonic() - began:.1f} s")
            load = Load(cluster, draw(top / "photo.jpg"))
            capacity = load.send(6)["throughput"]
            rate = max(1, int(0.7 * capacity))
            tell("requests a second that 2 pods can carry", f"{capacity:.0f}")
            releases(project, load, rate)
            bento = project.folder / "models/bento/src"
            network = (bento / "models/classifier/model.onnx").read_bytes()
            pool = (bento / "meadow/serving/pool.py").read_bytes()
            project.spoil("v2.0.0", "models/classifier/model.onnx", network[:-100])
            project.spoil("v2.1.0", "meadow/serving/pool.py", pool + SLOW.encode())
            project.register("v2.2.0")
            project.push("meadow:v1.0.0", "v2.2.0")
        bad(project, cluster)
        faults(cluster, load, max(1, rate // 2))
        scaling(cluster, load)
    sys.exit(bool(PROBLEMS))


def releases(project: Project, load: Load, rate: int) -> None:
    """Roll out and back under load."""
    for what, change in (
        ("release, image, promotion", lambda: project.release("v1.1.0")),
        ("rollback", lambda: project.run(*meadow("rollback", "--from", "prod"))),
    ):
        with load.during(60, rate) as figures:
            began = time.monotonic()
            change()
            changed = time.monotonic()
            refusal = project.deploy()
            ended = time.monotonic()
        require(not refusal, refusal)
        parts = f"{changed - began:.1f} s before `meadow deploy`"
        tell(f"{what} until all pods answer, under load", f"{ended - began:.1f} s, {parts}")
        lossless(what, figures)


def bad(project: Project, cluster: Node) -> None:
    """Try versions that do badly: none may reach the pods beside the canary."""
    before = images(cluster)
    for what, version in (
        ("does not start", "v2.0.0"), ("is slow", "v2.1.0"), ("answers wrongly", "v2.2.0"),
    ):  # fmt: skip
        assign = ("gto", "assign", "classifier", "--stage", "prod", "--force")
        project.run(*assign, "--version", version)
        began = time.monotonic()
        refusal = project.deploy()
        require("No other pod has it" in refusal, f"{version}: {refusal}")
        require(images(cluster).keys() == before.keys(), f"{version}: {images(cluster)}")
        seconds = time.monotonic() - began
        tell(f"a version that {what} is refused, no pod but the canary had it", f"{seconds:.1f} s")


def faults(cluster: Node, load: Load, rate: int) -> None:
    """Delete a pod, kill the kubelet and a process of a pod, under load that one pod can carry."""
    pod = cluster.kubectl("get", "pods", SPACE, STABLE, "--output=name").stdout.split()[0]
    with load.during(25, rate) as figures:
        cluster.kubectl("delete", pod, SPACE, "--wait=false")
    lossless("a deleted pod", figures)
    with load.during(25, rate) as figures:
        restart_kubelet(cluster)
    lossless("a killed kubelet", figures)
    with load.during(25, rate) as figures:
        kill_worker(cluster)
    tell(f"a killed process: failed requests of {figures['requests']}", failed(figures))
    ready = ("rollout", "status", "deployment/meadow", SPACE, "--timeout=60s")
    cluster.kubectl(*ready)


def restart_kubelet(cluster: Node) -> None:
    """Kill the process that runs the node's pods, and start it again after 5 s."""
    process = cluster.processes["kubelet"]
    psutil.Process(process.pid).children()[0].kill()  # nsenter waits for it
    process.wait()
    time.sleep(5)
    assert isinstance(process.args, list)
    cluster.start("kubelet", *process.args[len(cluster.inside) :])


def kill_worker(cluster: Node) -> None:
    """Kill the first process of a pod, as the kernel does for want of memory."""
    text = cluster.kubectl("get", "pods", SPACE, STABLE, "--output=json").stdout
    container = json.loads(text)["items"][0]["status"]["containerStatuses"][0]["containerID"]
    number = container.rpartition("/")[2]
    for process in Path("/proc").glob("[0-9]*"):
        if number in (process / "cgroup").read_text():
            os.kill(int(process.name), 9)
            return


def scaling(cluster: Node, load: Load) -> None:
    """Have the autoscaler add pods under load, and remove them after it."""

    def replicas() -> int:
        path = "--output=jsonpath={.spec.replicas}"
        return int(cluster.kubectl("get", "deployment", "meadow", SPACE, path).stdout)

    before = replicas()
    with load.during(90, 0):
        began = time.monotonic()
        cluster.until(lambda: replicas() > before, "more pods", 85)
        tell(f"more pods than {before} under load", f"{time.monotonic() - began:.0f} s")
    began = time.monotonic()
    cluster.until(lambda: replicas() == before, "fewer pods", 300)
    tell(f"{before} pods again", f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
