"""Pods of the service: what they answer to the test photos, how fast, and what they count."""

import base64
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import median

import httpx

from meadow.deployment import canary
from meadow.deployment.kubectl import forwarded, items
from meadow.errors import MeadowError
from meadow.evaluation.predictions import Prediction
from meadow.experiments.revision import Revision
from meadow.serving.client import Client

COMPARED = 40  # test photos at most
TOLERANCE = 1e-6  # of a probability
Photos = Sequence[tuple[Prediction, bytes]]  # with the answers that evaluate had


@dataclass(frozen=True)
class Pods:
    """Those of a namespace.

    Attributes:
        namespace: its name.
        key: of the service, or "".

    """

    namespace: str
    key: str

    @classmethod
    def of(cls, namespace: str) -> "Pods":
        """Find the key of the service in the Secret `meadow`, if there is one."""
        for secret in items("secrets", namespace, "--field-selector=metadata.name=meadow"):
            encoded = secret.get("data", {}).get("api-key", "")
            return cls(namespace, base64.b64decode(encoded).decode())
        return cls(namespace, "")

    def names(self, track: str) -> list[str]:
        """Return the names of the pods of a track that are not about to end."""
        pods = items(
            "pods", self.namespace, f"--selector=app.kubernetes.io/name=meadow,track={track}"
        )
        return [
            pod["metadata"]["name"]
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"] and pod["status"]["phase"] == "Running"
        ]

    def ask(self, pod: str, photos: Photos, *, compare: bool) -> float:
        """Ask a pod about photos.

        Args:
            pod: its name.
            photos: with the answers that evaluate had.
            compare: whether the pod's must be the same.

        Returns:
            The median of the seconds that an answer took.

        Raises:
            MeadowError: an answer differs, or the pod cannot be reached.

        """
        seconds = []
        with forwarded(pod, self.namespace) as url, Client(url, self.key) as client:
            for expected, photo in photos:
                began = time.perf_counter()
                answer = client.ask(photo)
                seconds.append(time.perf_counter() - began)
                label, confidence = answer["label"], answer["confidence"]
                if compare and (
                    label != expected.predicted or abs(confidence - expected.confidence) > TOLERANCE
                ):
                    raise MeadowError(
                        f"{pod} answers {label} ({confidence}) for {expected.path!r}, evaluate says"
                        f" {expected.predicted} ({expected.confidence})."
                    )
        return median(seconds)

    def counts(self, track: str) -> canary.Counts:
        """Return what the pods of a track have counted, added up; one that ends is passed over."""
        total = canary.Counts()
        for pod in self.names(track):
            with suppress(MeadowError, httpx.TransportError), forwarded(pod, self.namespace) as url:
                headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
                answer = httpx.get(f"{url}/metrics", headers=headers, trust_env=False)
                total.update(canary.counts(answer.raise_for_status().text))
        return total


def photos_of(commit: str) -> Photos:
    """Return some test photos of a commit, with the answers that evaluate had.

    Raises:
        MeadowError: neither DVC's cache nor the remote has them.

    """
    revision = Revision.find(commit)
    chosen = sorted(revision.answers.values(), key=lambda answer: answer.sha256)[:COMPARED]
    photos = [(answer, revision.photo(answer)) for answer in chosen]
    present = [(answer, photo) for answer, photo in photos if photo is not None]
    if not present:
        raise MeadowError(
            f"no test photo of {commit[:7]} is in DVC's cache or on the remote. Run `dvc pull`."
        )
    return present
