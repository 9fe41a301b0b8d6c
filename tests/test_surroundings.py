"""Where a project lies, how it was cloned and on what system it runs: no result depends on it."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clones import copied, runner, surroundings
from tools import NAMESPACE

from meadow.pipeline.ports import answers, free_port
from meadow.serving import server
from meadow.serving.client import Client
from meadow.serving.parent import end_with_parent

pytestmark = pytest.mark.slow
STAGES = ("prepare", "train", "evaluate", "report", "package")
UP_TO_DATE = "Data and pipelines are up to date.\n"
# What the kernel of Linux has and that of macOS has not, by "Availability" in Python's docs.
LINUX_ALONE = (
    "copy_file_range", "eventfd", "eventfd_read", "eventfd_write", "getrandom", "getxattr",
    "listxattr", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate",
    "removexattr", "sched_getaffinity", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_setaffinity", "sched_setparam", "sched_setscheduler",
    "setxattr", "splice",
)  # fmt: skip


def test_a_clone_with_other_ends_of_lines_runs_nothing(first_run: Path, tmp_path: Path) -> None:
    """Git may be set to write CR LF on checkout, and the hashes of code are of its bytes."""
    clone = tmp_path / "clone"
    command = ["git", "clone", "-q", "-c", "core.autocrlf=true", str(first_run), str(clone)]
    subprocess.run(command, check=True)
    run = runner(clone)
    run("dvc", "cache", "dir", "--local", str(first_run / ".dvc/cache"))
    run("dvc", "checkout", "-q")

    assert run("dvc", "status") == UP_TO_DATE
    assert not run("git", "status", "--porcelain")


@pytest.mark.parametrize("kind", ["symlink", "hardlink"])
def test_a_cache_may_link_its_files(first_run: Path, tmp_path: Path, kind: str) -> None:
    """DVC's own advice for a machine that several people share: the same outs, and a service."""
    project = copied(first_run, tmp_path / "project")
    run = runner(project)
    run("dvc", "config", "--local", "cache.type", kind)
    run("dvc", "checkout", "--relink")
    photo = project / "data/raw/gold/000.jpg"
    run("dvc", "repro", "--force", "--single-item", "prepare", "package")
    run("dvc", "checkout", "--relink")

    assert photo.is_symlink() == (kind == "symlink")
    assert photo.stat().st_nlink == (1 if kind == "symlink" else 2)
    assert not run("git", "status", "--porcelain")
    assert run("dvc", "status") == UP_TO_DATE
    with server.serving(project / server.BENTO) as url, Client(url) as client:
        assert client.ask(photo.read_bytes())["label"] in ("gold", "moss")


def test_a_folder_may_have_spaces_and_parentheses(first_run: Path, tmp_path: Path) -> None:
    """BentoML builds there, and `make serve` serves."""
    project = copied(first_run, tmp_path / "My Photos (2026)")
    run = runner(project)
    run("dvc", "repro", "--force", "--single-item", "prepare", "package")
    (project / ".venv").mkdir()
    (project / ".venv/installed").touch()  # newer than what `make` would install anew
    port = str(free_port())
    log = tmp_path / "log"
    with log.open("wb") as out:
        service = subprocess.Popen(
            ["make", "serve"],
            cwd=project,
            env={**surroundings(project), "BENTOML_PORT": port},
            stdout=out, stderr=out, start_new_session=True, preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        while not answers(f"http://127.0.0.1:{port}/readyz"):
            assert service.poll() is None, log.read_text()
            time.sleep(0.1)
    finally:
        os.killpg(service.pid, signal.SIGTERM)
        service.wait()

    assert not run("git", "status", "--porcelain")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels have other names elsewhere")
def test_the_shell_does_not_choose_the_kernels_that_train_a_head(in_built: Path) -> None:
    """Kernels round differently, and so do sums in threads; Prescott is one that all have."""
    made = []
    for settings in (
        {},
        {"OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F"},
        {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    ):
        command = [sys.executable, "-m", "meadow.train"]
        subprocess.run(command, env={**os.environ, **settings}, check=True, capture_output=True)
        model = in_built / "models/classifier"
        made.append({file.name: file.read_bytes() for file in model.iterdir()})

    assert made[0] == made[1]
    assert made[0] == made[2]


@pytest.mark.needs("network namespaces")
def test_nothing_leaves_the_loopback(in_built: Path, tmp_path: Path) -> None:
    """No packet of the stages, nor of the service that package asks; no report is prepared.

    ONNX Runtime would send one to its makers. Whatever is sent leaves by an interface that counts.
    """
    (tmp_path / "resolv.conf").write_text("nameserver 10.9.9.2\n")
    script = f"""
        mount --bind {tmp_path}/resolv.conf /etc/resolv.conf
        ip link set lo up
        ip link add name out type veth peer name beyond
        for name in out beyond; do ip link set $name addrgenmode none; ip link set $name up; done
        ip address add 10.9.9.1/24 dev out
        ip route add default via 10.9.9.2
        sent() {{ grep out: /proc/net/dev; }}
        sent
        for stage in {" ".join(STAGES)}; do {sys.executable} -m meadow.$stage >&2 || exit; done
        sent
        {sys.executable} -c 'import socket; socket.getaddrinfo("example.org", 80)' 2> /dev/null || :
        sent
    """
    home = tmp_path / "home"
    done = subprocess.run(
        [*NAMESPACE, "--net", "sh", "-ec", script],
        env={**os.environ, "XDG_CACHE_HOME": str(home), "RES_OPTIONS": "timeout:1"},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    before, after, looked_up = (int(line.split()[10]) for line in done.stdout.splitlines())

    assert before == after < looked_up, done.stderr
    assert "onnxruntime" not in done.stderr  # its warnings
    assert not list(home.rglob("*onnxruntime*"))


def test_what_macos_lacks_is_not_needed(toy_set: Path) -> None:
    """Every module is imported, and prepare runs, without the calls that Linux alone has."""
    script = f"""
import ctypes, importlib, os, pkgutil, sys
for name in {LINUX_ALONE}:
    vars(os).pop(name, None)
import meadow
for module in pkgutil.walk_packages(meadow.__path__, "meadow."):
    importlib.import_module(module.name)
from meadow.pipeline import cpu
from meadow.prepare import prepare
from meadow.serving import parent, pool
sys.platform = "darwin"
library = ctypes.CDLL
del ctypes.CDLL, os.setpriority
pool.give_way(1)
parent.end_with_parent()
ctypes.CDLL = library  # macOS has it, but no prctl; threadpoolctl uses it
prepare()
assert cpu.cores() >= 1
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    assert (toy_set.parent / "prepared/manifest.csv").exists()
