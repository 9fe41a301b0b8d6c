"""A real Kubernetes of the tests' own: an API server, and a node that runs pods if it is wanted.

The parts are what Go builds of Kubernetes, Debian's etcd, containerd and CNI plugins. A node needs
root; it lives in a network namespace and a folder, and both go with it.
"""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tools import need

from meadow.serving.parent import kill_with_parent
from meadow.storage import go_tools

TOKEN = "of-an-api-server-that-ends-with-the-test"  # noqa: S105


class Cluster:
    """An API server with its store.

    Args:
        folder: for all that it writes.
        inside: a command that runs the commands of all parts, such as `nsenter`.
        options: more of the API server.

    """

    def __init__(
        self, folder: Path, inside: Sequence[str] = (), options: Sequence[str] = ()
    ) -> None:
        need("Go", "etcd")
        self.folder = folder
        self.inside = inside
        self.options = options
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.kubeconfig = folder / "kubeconfig"
        self.port, self.store, self.peers = _ports(3)

    def start(self, name: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a part; its log is in the folder."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self.inside, *command],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                # an API server whose store has ended does not heed SIGTERM
                preexec_fn=kill_with_parent,
            )
        self.processes[name] = process
        return process

    def part(self, name: str, *options: str) -> subprocess.Popen[bytes]:
        """Start a part that Go builds."""
        return self.start(name, go_tools.binary(name), *options)

    def kubectl(
        self, *arguments: str, text: str = "", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as an administrator."""
        done = subprocess.run(
            [*self.inside, go_tools.binary("kubectl"), *arguments],
            input=text, env=self.environment(), check=False, capture_output=True, text=True,
        )  # fmt: skip
        assert not (check and done.returncode), f"{arguments}\n{done.stdout}{done.stderr}"
        return done

    def environment(self) -> dict[str, str]:
        """Return the environment in which `kubectl` is the built one, with this cluster."""
        path = f"{go_tools.binary('kubectl').parent}:{os.environ['PATH']}"
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def until(self, true: Callable[[], object], what: str, seconds: float = 90) -> None:
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not true():
            for name, process in self.processes.items():
                log = (self.folder / f"{name}.log").read_text(errors="replace")
                assert process.poll() is None, f"{name} ended:\n{log[-3000:]}"
            assert time.monotonic() < end, f"{what}: not within {seconds} s"
            time.sleep(0.2)

    def serve(self) -> None:
        """Start store and API server."""
        etcd = f"http://127.0.0.1:{self.store}"
        peers = f"http://127.0.0.1:{self.peers}"
        self.start(
            "etcd", "etcd", "--data-dir=etcd", f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}", f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}", f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",
        )  # fmt: skip
        key = ["openssl", "genrsa", "-out", "sa.key", "2048"]
        subprocess.run(key, cwd=self.folder, check=True, capture_output=True)
        (self.folder / "tokens.csv").write_text(f"{TOKEN},admin,admin,system:masters\n")
        self.kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": f"https://127.0.0.1:{self.port}", "insecure-skip-tls-verify": True,
            }}],
            "users": [{"name": "admin", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        }))  # fmt: skip
        self.part(
            "kube-apiserver", f"--etcd-servers={etcd}", f"--secure-port={self.port}",
            "--cert-dir=certs", "--service-account-key-file=sa.key",
            "--service-account-signing-key-file=sa.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--token-auth-file=tokens.csv", "--authorization-mode=RBAC,Node",
            "--service-cluster-ip-range=10.96.0.0/24", *self.options,
        )  # fmt: skip
        self.until(
            lambda: "ok" in self.kubectl("get", "--raw=/readyz", check=False).stdout, "API server"
        )

    def end(self) -> None:
        """End all parts, the last one first."""
        for process in reversed(self.processes.values()):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def api_server(folder: Path, *options: str) -> Iterator[Cluster]:
    """Run an API server without nodes, on the loopback."""
    loopback = ("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1")
    cluster = Cluster(folder, options=(*loopback, *options))
    try:
        cluster.serve()
        yield cluster
    finally:
        cluster.end()


def _ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
