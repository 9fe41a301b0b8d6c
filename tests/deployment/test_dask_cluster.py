"""The manifests for Dask's operator, as an API server with the operator's own schema reads them."""

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires

import pytest
import yaml
from clones import ROOT
from cluster import Cluster, api_server
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = ROOT / "deploy/dask"
OPERATOR = "dask-kubernetes==2026.3.0"
SCHEMA = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
# Imported by others where they are there, and by tests of all branches.
OPTIONAL = {"colorama", "coverage", "nvidia-ml-py", "setuptools"}
WORK = (
    "curation.inspection",
    "evaluation.answers",
    "pipeline.bucket",
    "pipeline.dask_map",
    "curation.near_duplicates",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("operator")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", OPERATOR]
    subprocess.run(download, cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    schema = zipfile.ZipFile(wheel).read(SCHEMA).decode()
    with api_server(tmp_path_factory.mktemp("api-server")) as cluster:
        cluster.kubectl("apply", "--server-side", "--filename=-", text=schema)
        name = yaml.safe_load(schema)["metadata"]["name"]
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{name}", "--timeout=60s")
        yield cluster


def dry_run(server: Cluster, text: str) -> subprocess.CompletedProcess[str]:
    options = ("--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
    return server.kubectl("apply", *options, text=text, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cluster", "network"])
def test_an_api_server_takes_it(server: Cluster, name: str) -> None:
    """Strictly, by the schema of the operator's release."""
    done = dry_run(server, (FOLDER / f"{name}.yaml").read_text())

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong"), [("replicas:", "replica:"), ("readinessProbe:", "readynessProbe:")]
)
def test_an_api_server_refuses_a_misspelt_field(server: Cluster, right: str, wrong: str) -> None:
    """The schema reaches into the pods."""
    text = (FOLDER / "cluster.yaml").read_text()
    assert right in text
    done = dry_run(server, text.replace(right, wrong))

    assert done.returncode != 0
    assert f"{wrong.strip(':')}: field not declared in schema" in done.stderr


def test_the_image_has_all_that_the_work_imports() -> None:
    """And not PyTorch, DVC or the service: a worker starts in a second."""
    (line,) = re.findall(r"^    (distributed .*)$", (FOLDER / "Dockerfile").read_text(), re.M)
    code = f"""
import sys
for name in {WORK!r}:
    __import__("meadow." + name)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    packages = packages_distributions()
    imported = {
        canonicalize_name(packages[name][0]) for name in done.stdout.split() if name in packages
    }

    assert imported - {"meadow", *OPTIONAL} <= installed(line.split())


def installed(names: list[str]) -> set[str]:
    """Return the packages that pip installs for these."""
    every: set[str] = set()
    while names:
        name = canonicalize_name(names.pop())
        if name not in every:
            every.add(name)
            needed = map(Requirement, requires(name) or [])
            names += [need.name for need in needed if not need.marker or need.marker.evaluate()]
    return every
