"""What tests start ends with the test run, even where that is killed."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from clones import ROOT
from tools import need

SERVERS = {  # by name: what it needs, what starts it
    "service": ((), "serving(Path(sys.argv[2]))"),
    "MinIO": (("Go",), "nullcontext(Server(folder))"),
    "API server": (("Go", "etcd"), "api_server(folder)"),
    "Docker": (("container engine",), "engine(folder)"),
    "MLflow": (
        ("PostgreSQL", "Go"),
        "nullcontext(MlflowServer(folder, Server(folder / 'minio')))",
    ),
    "Airflow": (
        ("PostgreSQL", "Redis"),
        "nullcontext((airflow := Airflow(folder, ROOT), airflow.worker('worker')))",
    ),
}
CODE = """
import sys, time
from contextlib import nullcontext
from pathlib import Path
from airflow_servers import Airflow
from clones import ROOT
from cluster import api_server
from engine import engine
from meadow.serving.server import serving
from mlflow_server import MlflowServer
from servers import Server
folder = Path(sys.argv[1])
with {}:
    print(flush=True)
    time.sleep(999)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVERS)
def test_a_killed_test_run_leaves_no_process(
    name: str, packaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Not one of those that the server has started, either."""
    tools, code = SERVERS[name]
    need(*tools)
    folder = tmp_path_factory.mktemp("f")  # a socket's path may have 107 characters
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format(code), folder, packaged / "models/bento"],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        started = psutil.Process(run.pid).children(recursive=True)
        run.kill()
    assert started
    assert psutil.wait_procs(started, timeout=60)[1] == []
