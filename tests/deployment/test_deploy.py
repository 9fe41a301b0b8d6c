"""From a stage to the cluster: an API server that is real, and pods that are not."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from clones import ROOT, attempt, runner
from cluster import Cluster, api_server
from servers import meadow

from meadow.deployment import canary, deploy, pods
from meadow.errors import MeadowError
from meadow.experiments import registry

IMAGE = f"registry.example.org/meadow@sha256:{'1' * 64}"
OLD = f"registry.example.org/meadow@sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with api_server(tmp_path_factory.mktemp("api-server")) as cluster:
        yield cluster


@pytest.mark.slow
def test_a_dry_run_prints_what_would_change_and_changes_nothing(
    server: Cluster, first_run: Path, tmp_path: Path
) -> None:
    """At first all of it; then what differs, as `kubectl diff` says."""
    project = shutil.copytree(first_run, tmp_path / "project", symlinks=True)
    run = runner(project)
    run("gto", "register", "classifier", "HEAD", "--version", "v1.2.0")
    command = meadow("deploy", "--stage", "staging", "--image", IMAGE, "--dry-run")
    environment = {name: server.environment()[name] for name in ("KUBECONFIG", "PATH")}
    empty = attempt(project, *command, **environment)
    run("gto", "assign", "classifier", "--version", "v1.2.0", "--stage", "staging")
    first = run(*command, **environment)
    spaces = server.kubectl("get", "namespaces", "--output=name").stdout
    documents = list(yaml.safe_load_all(first))
    server.kubectl("apply", "--server-side", "--filename=-", text=first.replace(IMAGE, OLD))
    second = run(*command, **environment)
    image = server.kubectl(
        "get", "deployment", "meadow", "--namespace=meadow-staging", "--output=yaml"
    ).stdout

    assert "no version is in staging. Run `meadow promote VERSION --to staging`" in empty.stderr
    assert first.startswith("# all of this is new")
    assert "meadow-staging" not in spaces
    assert {each["kind"] for each in documents} >= {"Deployment", "Service", "NetworkPolicy"}
    assert [line.strip() for line in second.splitlines() if "image:" in line] == [
        f"-        image: {OLD}",
        f"+        image: {IMAGE}",
    ]
    assert OLD in image


class Pods:
    """Stands in for the pods of a cluster, and for kubectl.

    Attributes:
        commands: of kubectl that would change something.
        slow: the seconds that an answer of the canary takes.
        wrong: the track whose pods answer wrongly.
        stuck: the Deployment that does not get ready.
        known: versions as which pods of the image have answered rightly here.
        differences: what the canary's figures show.
        canaries: Deployments of canaries that were applied.

    """

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.slow = 0.01
        self.wrong = self.stuck = ""
        self.known: list[str] = []
        self.differences: list[str] = []
        self.canaries: list[Any] = []

    def kubectl(self, *arguments: str, text: str = "", **_: int) -> str:
        verb = arguments[0]
        if verb == "get":
            return json.dumps({"status": {"readyReplicas": 8}})
        if verb == "apply":
            documents = list(yaml.safe_load_all(text))
            named = [f"{each['kind']}/{each['metadata']['name']}" for each in documents]
            self.commands.append(f"apply {' '.join(named)}")
            self.canaries += documents * (named == ["Deployment/meadow-canary"])
        elif arguments[:2] == ("rollout", "status"):
            if arguments[2] == f"deployment/{self.stuck}" and not self.undone:
                raise MeadowError("timed out")
        elif verb != "logs":
            self.commands.append(" ".join(arguments[:3]))
        return ""

    @property
    def undone(self) -> bool:
        return any("undo" in command for command in self.commands)

    def items(self, *_: str) -> list[dict[str, Any]]:
        def replica_set(image: str, annotations: dict[str, str]) -> dict[str, Any]:
            containers = {"spec": {"containers": [{"image": image}]}}
            metadata = {"name": image[-4:], "annotations": annotations}
            return {"metadata": metadata, "spec": {"template": containers}}

        marks = {f"{deploy.VERIFIED}-{version}": "yes" for version in self.known}
        return [replica_set(OLD, {f"{deploy.VERIFIED}-v1.2.0": "yes"}), replica_set(IMAGE, marks)]

    def names(self, track: str) -> list[str]:
        return [f"{track}-1", f"{track}-2"]

    def ask(self, pod: str, *_: object, compare: bool) -> float:
        if compare and pod.startswith(self.wrong or "nobody"):
            raise MeadowError(f"{pod} answers moss")
        return self.slow if pod.startswith(deploy.CANARY) else 0.01

    def counts(self, _: str) -> canary.Counts:
        return canary.Counts()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Pods:
    fake = Pods()
    monkeypatch.chdir(ROOT)
    version = SimpleNamespace(name="v1.2.0", commit="abc")
    monkeypatch.setattr(registry, "fetch", lambda: None)
    monkeypatch.setattr(registry, "in_stage", lambda _: version)
    documents = [
        {"kind": "Namespace", "metadata": {"name": "space"}},
        {
            "kind": "Deployment",
            "metadata": {"name": "meadow", "namespace": "space"},
            "spec": {
                "selector": {"matchLabels": {"track": "stable"}},
                "template": {
                    "metadata": {"labels": {"track": "stable"}},
                    "spec": {"containers": [{"image": IMAGE}]},
                },
            },
        },
    ]
    rollout = deploy.Rollout(documents, documents[1])
    monkeypatch.setattr(deploy.Rollout, "read", lambda *_: rollout)
    monkeypatch.setattr(deploy, "kubectl", fake.kubectl)
    monkeypatch.setattr(deploy, "items", fake.items)
    monkeypatch.setattr(pods, "photos_of", lambda _: [])
    monkeypatch.setattr(pods.Pods, "of", lambda _: fake)
    monkeypatch.setattr(canary, "differences", lambda *_: fake.differences)
    return fake


def go(cluster: Pods) -> None:
    deploy.deploy("prod", None, 0, dry_run=False)


def test_a_new_version_goes_by_a_canary_to_all(cluster: Pods) -> None:
    """The canary has a quarter of the pods, and ends before the others begin."""
    go(cluster)

    assert cluster.commands == [
        "apply Namespace/space",
        "apply Deployment/meadow-canary",
        "delete deployment meadow-canary",
        "apply Deployment/meadow",
        "annotate replicaset 1111",
    ]
    (second,) = cluster.canaries
    assert second["spec"]["replicas"] == 2
    assert second["spec"]["selector"]["matchLabels"] == {"track": "canary"}
    assert second["spec"]["template"]["metadata"]["labels"] == {"track": "canary"}


def test_a_version_that_was_here_before_goes_to_all_at_once(cluster: Pods) -> None:
    """As in a rollback, which is in a hurry."""
    cluster.known = ["v1.1.0", "v1.2.0"]
    go(cluster)

    assert cluster.commands == [
        "apply Namespace/space Deployment/meadow",
        "annotate replicaset 1111",
    ]


def test_an_image_that_was_right_for_another_version_is_tried_first(cluster: Pods) -> None:
    """A tag that was put on the wrong image would send wrong answers to all pods."""
    cluster.known = ["v1.1.0"]
    cluster.wrong = deploy.CANARY
    with pytest.raises(MeadowError, match="No other pod has it"):
        go(cluster)

    assert "apply Deployment/meadow" not in cluster.commands


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"stuck": "meadow-canary"}, "meadow-canary does not get ready"),
        ({"wrong": "canary"}, "canary-1 answers moss"),
        ({"slow": 0.5}, r"an answer takes 0\.500 s; before it took 0\.010 s"),
        ({"differences": ["it fails"]}, "the canary differs: it fails"),
    ],
)
def test_a_version_that_does_badly_reaches_the_canary_alone(
    cluster: Pods, fault: dict[str, Any], message: str
) -> None:
    """The canary is removed, and the Deployment beside it was not touched."""
    vars(cluster).update(fault)
    with pytest.raises(MeadowError, match=f"(?s){message}.*No other pod has it"):
        go(cluster)

    assert cluster.commands[-1] == "delete deployment meadow-canary"
    assert "apply Deployment/meadow" not in cluster.commands


@pytest.mark.parametrize("fault", [{"stuck": "meadow"}, {"wrong": "stable"}])
def test_what_is_seen_later_is_undone(cluster: Pods, fault: dict[str, Any]) -> None:
    """And is not taken for a version that has answered rightly."""
    vars(cluster).update(fault)
    with pytest.raises(MeadowError, match="The version before runs again"):
        go(cluster)

    assert cluster.commands[-1] == "rollout undo deployment/meadow"


def test_a_stage_that_is_no_overlay_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(MeadowError, match=r"overlays/test is missing: .* has prod, staging"):
        deploy.Rollout.read("test", IMAGE, "v1.0.0")
