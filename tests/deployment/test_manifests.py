"""The manifests, as kube-score and a real API server read them."""

import re
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from clones import ROOT
from cluster import Cluster, api_server
from tools import need

from meadow.storage import go_tools

OVERLAYS = ROOT / "deploy/kubernetes/overlays"
STAGES = ("staging", "prod")
DIGEST = f"registry.example.org/meadow@sha256:{'0' * 64}"
# As much of the Prometheus Operator's as an API server needs to take its objects.
SERVICE_MONITORS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: servicemonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {plural: servicemonitors, singular: servicemonitor, kind: ServiceMonitor}
  versions:
    - name: v1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def rendered(stage: str) -> str:
    """Return the documents of a stage, with an image's digest as `meadow deploy` fills it in."""
    need("Go")
    command = [str(go_tools.binary("kubectl")), "kustomize", str(OVERLAYS / stage)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(r"(?<=image: )registry\.example\.org/meadow$", DIGEST, text, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_kube_score_has_nothing_to_say(stage: str) -> None:
    """No warning, and nothing critical."""
    done = subprocess.run(
        [go_tools.binary("kube-score"), "score", "--exit-one-on-warning", "-"],
        input=rendered(stage), check=False, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with api_server(tmp_path_factory.mktemp("api-server")) as cluster:
        cluster.kubectl("apply", "--filename=-", text=SERVICE_MONITORS)
        name = "servicemonitors.monitoring.coreos.com"
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
        for stage in STAGES:
            cluster.kubectl("create", "namespace", f"meadow-{stage}")
        yield cluster


def apply(server: Cluster, text: str) -> subprocess.CompletedProcess[str]:
    options = ("--server-side", "--validate=strict", "--force-conflicts", "--filename=-")
    return server.kubectl("apply", *options, text=text, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_an_api_server_takes_all_of_it(server: Cluster, stage: str) -> None:
    """Server-side, strictly, without a warning of the policy `restricted`."""
    text = rendered(stage)
    done = apply(server, text)
    again = server.kubectl("diff", "--server-side", "--filename=-", text=text)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(list(yaml.safe_load_all(text)))
    assert again.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ("readinessProbe:", "readynessProbe:", "readynessProbe: field not declared in schema"),
        ("minReplicas: 2", "minReplicas: 200", "must be greater than or equal to `minReplicas`"),
        ("periodSeconds: 5", "periodSeconds: -5", "must be greater than or equal to 0"),
    ],
)
def test_an_api_server_refuses_what_is_wrong(
    server: Cluster, right: str, wrong: str, reason: str
) -> None:
    """A field that is misspelt, values that contradict each other or make no sense."""
    text = rendered("staging")
    assert right in text
    done = apply(server, text.replace(right, wrong))

    assert done.returncode != 0
    assert reason in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("runAsNonRoot: true", "runAsNonRoot: false"),
        ("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true"),
        ("type: RuntimeDefault", "type: Unconfined"),
    ],
)
def test_the_namespace_takes_our_pods_and_none_with_more_rights(
    server: Cluster, right: str, wrong: str
) -> None:
    """By Kubernetes' policy `restricted`."""
    documents = {each["kind"]: each for each in yaml.safe_load_all(rendered("staging"))}
    apply(server, yaml.safe_dump(documents["Namespace"]))
    account = server.kubectl(
        "create", "serviceaccount", "default", "--namespace=meadow-staging", check=False
    )  # no controller runs that would make it
    template = documents["Deployment"]["spec"]["template"]
    template["metadata"] |= {"name": "one", "namespace": "meadow-staging"}
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", **template})
    assert right in text
    options = ("create", "--dry-run=server", "--filename=-")
    taken = server.kubectl(*options, text=text, check=False)
    refused = server.kubectl(*options, text=text.replace(right, wrong), check=False)

    assert taken.returncode == 0, taken.stderr + account.stderr
    assert 'violates PodSecurity "restricted' in refused.stderr
