"""deploy/compose.yaml, as Compose itself reads it."""

import os
import subprocess
from typing import Any

import pytest
import yaml
from clones import ROOT
from tools import need

from meadow.deployment import env_file
from meadow.storage import go_tools

FILE = ROOT / "deploy/compose.yaml"
KEYS = {**dict.fromkeys(env_file.SECRETS, "key"), "MEADOW_VERSION": "one"}


def compose(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    need("Go")
    clean = {name: value for name, value in os.environ.items() if name not in KEYS}
    return subprocess.run(
        [str(go_tools.binary("docker-compose")), f"--file={FILE}", *arguments],
        env=clean | environment, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = compose("--profile=*", "config", **KEYS)
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


@pytest.mark.slow
def test_all_of_it_is_on_the_loopback_and_has_no_rights(services: dict[str, Any]) -> None:
    """Each service has a profile, and its image a version."""
    assert {*services} >= {"service", "minio", "mlflow", "airflow-worker"}
    for service in services.values():
        assert service["profiles"]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert ":" in service["image"]
        assert "latest" not in service["image"]
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", KEYS)
def test_no_key_has_a_default(name: str) -> None:
    """It says which command makes them."""
    done = compose("config", "--quiet", **{key: KEYS[key] for key in KEYS if key != name})

    assert done.returncode != 0
    assert f"{name} is missing a value: run make env" in done.stderr
