"""What some tests need beyond Python, Git and make: where it is absent, they are skipped.

A helper that uses such a tool calls `need`; a test that uses one itself is marked `needs`. The run
ends with one line that names what was absent. With CI=true, which .ci/run sets, they fail instead.
"""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

MODULES = Path(__file__).with_name("node_modules")
PHOTOS = Path(__file__).parents[2] / "shared/photos/dandelion-grass"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
# In it a command may mount; a user without root becomes root of a user namespace of his own.
NAMESPACE = ("unshare", *(["--map-root-user"] if os.geteuid() else []), "--mount")
PREFIX = "for want of "


def _namespaces() -> bool:
    try:
        command = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def _networks() -> bool:
    """Tell whether a command may have a network of its own, and interfaces in it."""
    link = "ip link add name one type veth peer name two"
    command = [*NAMESPACE, "--net", "sh", "-c", link]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


# by name: how to get it, and whether it is there
TOOLS: dict[str, tuple[str, Callable[[], object]]] = {
    "Chromium": ("apt-get install chromium", lambda: CHROMIUM),
    "Dask": (
        "pip install -r requirements/dask.txt -c requirements/constraints.txt",
        lambda: find_spec("distributed"),
    ),
    "MLflow": (
        "pip install -r requirements/mlflow.txt -c requirements/constraints.txt",
        lambda: find_spec("mlflow"),
    ),
    "Node": (
        "apt-get install nodejs npm; npm ci --prefix tests",
        lambda: shutil.which("node") and (MODULES / "axe-core").is_dir(),
    ),
    "Go": ("https://go.dev/dl", lambda: shutil.which("go")),
    "Prometheus": (
        "apt-get install prometheus prometheus-alertmanager",
        lambda: shutil.which("promtool") and shutil.which("prometheus-alertmanager"),
    ),
    "container engine": (
        "as root: apt-get install docker.io mmdebstrap",
        lambda: os.geteuid() == 0 and shutil.which("dockerd") and shutil.which("mmdebstrap"),
    ),
    "CNI plugins": (
        "apt-get install containernetworking-plugins conntrack",
        lambda: Path("/usr/lib/cni/bridge").exists() and shutil.which("conntrack"),
    ),
    "etcd": ("apt-get install etcd-server", lambda: shutil.which("etcd")),
    "PostgreSQL": ("apt-get install postgresql", lambda: POSTGRES),
    "Redis": ("apt-get install redis-server", lambda: shutil.which("redis-server")),
    "shellcheck": ("apt-get install shellcheck", lambda: shutil.which("shellcheck")),
    "nginx": ("apt-get install nginx-light", lambda: NGINX),
    "systemd-analyze": ("apt-get install systemd", lambda: shutil.which("systemd-analyze")),
    "mount namespaces": ("unshare --mount, by root or with user namespaces", _namespaces),
    "network namespaces": (
        "apt-get install iproute2; unshare --net, by root or with user namespaces",
        lambda: _namespaces() and _networks(),
    ),
    "photos": ("the 400 real ones have no licence to be copied", PHOTOS.is_dir),
}


@cache
def absent(name: str) -> bool:
    """Return whether this machine lacks a tool."""
    return not TOOLS[name][1]()


def need(*names: str) -> None:
    """Skip the test where one of these tools is absent; fail it in CI, where all can be got."""
    for name in filter(absent, names):
        stop = pytest.fail if os.environ.get("CI") and name != "photos" else pytest.skip
        stop(PREFIX + name)


def summary(reasons: Iterable[str]) -> str:
    """Count the reasons of skipped tests, in one line; empty where no tool was absent."""
    counts = Counter(reason.partition(PREFIX)[2] for reason in reasons if PREFIX in reason)
    parts = [f"{name}: {count} ({TOOLS[name][0]})" for name, count in sorted(counts.items())]
    return f"tests skipped {PREFIX}{'; '.join(parts)}" if parts else ""
