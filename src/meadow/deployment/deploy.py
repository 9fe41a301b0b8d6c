"""Bring the version that is in a stage into the cluster, and take it back where it does badly.

A new version runs in a second Deployment first, with a share of the pods. It is asked about the
test photos, and what it counts is compared with what the pods beside it count; only then do all
pods follow, and these are asked too.
"""

import copy
import json
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from meadow.deployment import canary, pods
from meadow.deployment.kubectl import items, kubectl
from meadow.deployment.pods import Pods
from meadow.errors import MeadowError
from meadow.experiments import registry
from meadow.storage import go_tools

OVERLAYS = Path("deploy/kubernetes/overlays")
NAME, STABLE, CANARY = "meadow", "stable", "canary"
SELECTOR = f"--selector=app.kubernetes.io/name={NAME},track={STABLE}"
SHARE = 0.25  # of the pods are the canary's
SLOWER, SLACK = 2.0, 0.05  # an answer may take so many times as long as before, and seconds more
READY_WITHIN = 120  # seconds
VERIFIED = "meadow/verified"  # and a version, on a ReplicaSet: its pods have answered as that does
APPLY = ("apply", "--server-side", "--force-conflicts", "--field-manager=meadow", "--filename=-")
Document = dict[str, Any]


def deploy(stage: str, image: str | None, watch: float, dry_run: bool) -> None:
    """Bring the version that is in a stage to all pods of its overlay, or to none.

    A version whose pods have answered rightly in this cluster before, as in a rollback, goes to all
    pods at once.

    Args:
        stage: a folder of deploy/kubernetes/overlays.
        image: by its digest; None: that of the version, as the registry of the overlay has it.
        watch: seconds for which a canary and the pods beside it are compared.
        dry_run: print what would change, and change nothing.

    Raises:
        MeadowError: there is no such stage, no version in it or no image of it; or the version does
            badly: then the one before runs on.

    """
    registry.fetch()
    version = registry.in_stage(stage)
    if not version:
        raise MeadowError(f"no version is in {stage}. Run `meadow promote VERSION --to {stage}`.")
    rollout = Rollout.read(stage, image, version.name)
    if dry_run:
        print(rollout.diff(), end="")
        return
    photos = pods.photos_of(version.commit)
    if rollout.is_first() or rollout.is_verified(version.name):
        rollout.apply(rollout.documents)
    else:
        rollout.apply([each for each in rollout.documents if each is not rollout.deployment])
        rollout.try_canary(photos, watch)
        rollout.apply([rollout.deployment])
    rollout.finish(photos, version.name)
    print(f"{version.name} is in {stage}: {rollout.image}")


@dataclass(frozen=True)
class Rollout:
    """The documents of an overlay, with the image that is to run.

    Attributes:
        documents: all of them.
        deployment: the one of the service.

    """

    documents: list[Document]
    deployment: Document

    @classmethod
    def read(cls, stage: str, image: str | None, version: str) -> "Rollout":
        """Have Kustomize put an overlay together; fill in the image, by its digest."""
        folder = OVERLAYS / stage
        if not folder.is_dir():
            stages = ", ".join(sorted(path.name for path in OVERLAYS.iterdir()))
            raise MeadowError(f"{folder} is missing: {OVERLAYS} has {stages}.")
        documents = list(yaml.safe_load_all(kubectl("kustomize", str(folder))))
        (deployment,) = (each for each in documents if each["kind"] == "Deployment")
        container = deployment["spec"]["template"]["spec"]["containers"][0]
        name = re.sub(r"[:@][^/]*$", "", container["image"])  # a registry's port is before a slash
        container["image"] = image or _digest(f"{name}:{version}")
        return cls(documents, deployment)

    @property
    def image(self) -> str:
        """Return the image that is to run."""
        return str(self.deployment["spec"]["template"]["spec"]["containers"][0]["image"])

    @property
    def namespace(self) -> str:
        """Return the namespace that all is in."""
        return str(self.deployment["metadata"]["namespace"])

    def diff(self) -> str:
        """Return what `kubectl diff` says; where there is no namespace yet, all documents."""
        if not kubectl("get", "namespace", self.namespace, "--ignore-not-found"):
            return f"# all of this is new\n{yaml.safe_dump_all(self.documents)}"
        options = ("--server-side", "--force-conflicts", "--field-manager=meadow", "--filename=-")
        return kubectl("diff", *options, text=yaml.safe_dump_all(self.documents), allowed=1)

    def apply(self, documents: list[Document]) -> None:
        """Apply them; a field that Kubernetes does not know is an error."""
        kubectl(*APPLY, "--validate=strict", text=yaml.safe_dump_all(documents))

    def is_first(self) -> bool:
        """Whether nothing runs yet that a canary could be compared with."""
        return not self._get("deployment", NAME)

    def is_verified(self, version: str) -> bool:
        """Whether pods of this image have answered here before, as those of the version have to."""
        mark = f"{VERIFIED}-{version}"
        return any(mark in each["metadata"]["annotations"] for each in self._replica_sets())

    def try_canary(self, photos: pods.Photos, watch: float) -> None:
        """Run a share of the pods with the new version, and remove them again.

        Raises:
            MeadowError: they do not get ready, answer otherwise than evaluate, or do worse than the
                others.

        """
        running = self._get("deployment", NAME)["status"].get("readyReplicas", 1)
        second = copy.deepcopy(self.deployment)
        second["metadata"]["name"] = f"{NAME}-{CANARY}"
        second["spec"]["replicas"] = max(1, round(SHARE * running))
        for labels in (
            second["spec"]["selector"]["matchLabels"],
            second["spec"]["template"]["metadata"]["labels"],
        ):
            labels["track"] = CANARY
        try:
            self.apply([second])
            self._wait(second)
            self._compare(photos, watch)
        except MeadowError as error:
            raise MeadowError(
                f"{error}\nNo other pod has it: the version before runs on."
            ) from None
        finally:
            kubectl(
                "delete",
                "deployment",
                f"{NAME}-{CANARY}",
                f"--namespace={self.namespace}",
                "--wait=false",
            )

    def _compare(self, photos: pods.Photos, watch: float) -> None:
        group = Pods.of(self.namespace)
        new = [group.ask(pod, photos, compare=True) for pod in group.names(CANARY)]
        old = group.ask(group.names(STABLE)[0], photos, compare=False)
        if max(new) > SLOWER * old + SLACK:
            raise MeadowError(f"an answer takes {max(new):.3f} s; before it took {old:.3f} s.")
        before = [group.counts(track) for track in (STABLE, CANARY)]
        time.sleep(watch)
        after = [group.counts(track) for track in (STABLE, CANARY)]
        worse = canary.differences(*(now - then for now, then in zip(after, before, strict=True)))
        if worse:
            raise MeadowError(f"the canary differs: {'; '.join(worse)}.")

    def finish(self, photos: pods.Photos, version: str) -> None:
        """Wait until all pods have the new version and answer rightly; else take it back."""
        try:
            self._wait(self.deployment)
            group = Pods.of(self.namespace)
            for pod in group.names(STABLE):
                group.ask(pod, photos, compare=True)
        except MeadowError as error:
            raise MeadowError(f"{error}\n{self._undo()}") from None
        for each in self._replica_sets():
            kubectl(
                "annotate",
                "replicaset",
                each["metadata"]["name"],
                f"{VERIFIED}-{version}=yes",
                "--overwrite",
                f"--namespace={self.namespace}",
            )

    def _undo(self) -> str:
        where = f"--namespace={self.namespace}"
        if len(items("replicasets", self.namespace, SELECTOR)) < 2:
            kubectl("delete", "deployment", NAME, where)
            return "It was the first one here, and it is removed."
        kubectl("rollout", "undo", f"deployment/{NAME}", where)
        self._wait(self.deployment)
        return "The version before runs again."

    def _wait(self, deployment: Document) -> None:
        name, where = deployment["metadata"]["name"], f"--namespace={self.namespace}"
        try:
            kubectl("rollout", "status", f"deployment/{name}", where, f"--timeout={READY_WITHIN}s")
        except MeadowError as error:
            logs = kubectl("logs", f"deployment/{name}", where, "--tail=20", allowed=1)
            raise MeadowError(f"{name} does not get ready: {error}\n{logs}") from None

    def _replica_sets(self) -> list[Document]:
        sets = items("replicasets", self.namespace, SELECTOR)
        return [
            each
            for each in sets
            if each["spec"]["template"]["spec"]["containers"][0]["image"] == self.image
        ]

    def _get(self, kind: str, name: str) -> Document:
        text = kubectl(
            "get",
            kind,
            name,
            f"--namespace={self.namespace}",
            "--ignore-not-found",
            "--output=json",
        )
        return dict(json.loads(text or "{}"))


def _digest(reference: str) -> str:
    """Return an image's name with the digest that its registry has for a tag."""
    crane = shutil.which("crane") or go_tools.binary("crane")
    done = subprocess.run([crane, "digest", reference], check=False, capture_output=True, text=True)
    if done.returncode:
        raise MeadowError(
            f"there is no image {reference}: {done.stderr.strip()}. Push it (`make image`,"
            " `docker push`), or name one: --image NAME@sha256:..."
        )
    return f"{reference.rpartition(':')[0]}@{done.stdout.strip()}"
