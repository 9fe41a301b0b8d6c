"""A whole Kubernetes of one node, in a network namespace and a folder of its own; it needs root."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from cluster import Cluster
from tools import need

from meadow.serving.parent import kill_with_parent
from meadow.storage import go_tools

ADDRESS, GATEWAY, PODS = "10.77.0.2", "10.77.0.1", "10.88.0.0/16"  # in the namespace alone
REGISTRY = "127.0.0.1:5000"
PAUSE = f"{REGISTRY}/pause:1"
_PAUSE = """package main
import ("os"; "os/signal"; "syscall")
func main() { c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGTERM); <-c }
"""
_METRICS = f"""
apiVersion: v1
kind: Service
metadata: {{name: metrics-server, namespace: kube-system}}
spec: {{ports: [{{port: 443, targetPort: 4443, name: https}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: metrics-server-1
  namespace: kube-system
  labels: {{kubernetes.io/service-name: metrics-server}}
addressType: IPv4
ports: [{{name: https, port: 4443, protocol: TCP}}]
endpoints: [{{addresses: ["{ADDRESS}"], conditions: {{ready: true}}}}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{name: v1beta1.metrics.k8s.io}}
spec:
  group: metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {{name: metrics-server, namespace: kube-system, port: 443}}
"""


class Node(Cluster):
    """An API server, controllers, a registry, and a node that runs pods."""

    def __init__(self, folder: Path) -> None:
        need("container engine", "CNI plugins")
        # Whatever runs in these namespaces, and whatever is mounted, ends with their first process.
        command = "mount -t tmpfs tmpfs /run && echo && while sleep 1; do :; done"
        self.first = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child",
             "sh", "-c", command],
            cwd=folder, stdout=subprocess.PIPE,
            preexec_fn=kill_with_parent,
        )  # fmt: skip
        assert self.first.stdout is not None
        self.first.stdout.readline()
        (self.init,) = psutil.Process(self.first.pid).children()
        self.net = ["nsenter", f"--target={self.init.pid}", "--net"]
        self.groups = _groups(f"meadow-{os.getpid()}")
        super().__init__(folder, [*self.net, "--mount", "--pid", "--wd"], (
            "--bind-address=0.0.0.0", f"--advertise-address={ADDRESS}", "--allow-privileged",
            "--kubelet-preferred-address-types=InternalIP", "--enable-aggregator-routing",
            "--requestheader-client-ca-file=front.crt", "--requestheader-allowed-names=front",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--proxy-client-cert-file=front.crt", "--proxy-client-key-file=front.key",
        ))  # fmt: skip

    def up(self) -> None:
        """Start all parts and wait for the node."""
        self._network()
        self._images()
        request = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=front"
        certificate = [*request.split(), "-keyout", "front.key", "-out", "front.crt"]
        subprocess.run(certificate, cwd=self.folder, check=True, capture_output=True)
        self.serve()
        known = f"--kubeconfig={self.kubeconfig}"
        self.part(
            "kube-controller-manager", known, "--service-account-private-key-file=sa.key",
            "--leader-elect=false", "--bind-address=127.0.0.1",
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-downscale-stabilization=20s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        )  # fmt: skip
        self.part("kube-scheduler", known, "--leader-elect=false", "--bind-address=127.0.0.1")
        self.part(
            "kubelet", known, f"--config={self._kubelet()}", "--hostname-override=node",
            f"--node-ip={ADDRESS}", f"--root-dir={self.folder}/kubelet",
        )  # fmt: skip
        self.part("kube-proxy", f"--config={self._proxy()}")
        self.part(
            "metrics-server", known, f"--authentication-kubeconfig={self.kubeconfig}",
            f"--authorization-kubeconfig={self.kubeconfig}", "--secure-port=4443",
            "--cert-dir=metrics-certs", "--kubelet-insecure-tls",
            "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s",
            "--kubelet-request-timeout=5s", "--bind-address=0.0.0.0",
        )  # fmt: skip
        self.kubectl("apply", "--filename=-", text=_METRICS)
        ready = ("wait", "--for=condition=Ready", "node/node", "--timeout=1s")
        self.until(lambda: not self.kubectl(*ready, check=False).returncode, "the node")

    def push(self, archive: Path, name: str) -> None:
        """Push an image that `docker save` has written."""
        crane = go_tools.binary("crane")
        command = [*self.net, str(crane), "push", str(archive), f"{REGISTRY}/{name}"]
        subprocess.run(command, check=True, capture_output=True)

    def down(self) -> None:
        """End all pods and parts; nothing stays but files."""
        self.first.kill()
        self.init.wait(30)
        for process in (self.first, *self.processes.values()):
            process.wait()
        for group in self.groups:
            for folder in sorted(filter(Path.is_dir, group.rglob("*")), reverse=True):
                folder.rmdir()
            group.rmdir()

    def _network(self) -> None:
        for command in (
            "link set lo up", "link add node0 type bridge", f"addr add {ADDRESS}/24 dev node0",
            "link set node0 up", f"route add default via {GATEWAY}",
        ):  # fmt: skip
            subprocess.run([*self.net, "ip", *command.split()], check=True)
        subprocess.run([*self.net, "sysctl", "-qw", "net.ipv4.ip_forward=1"], check=True)

    def _images(self) -> None:
        (self.folder / "blobs").mkdir()
        crane = go_tools.binary("crane")
        self.start("registry", crane, "registry", "serve", f"--address={REGISTRY}", "--disk=blobs")
        (self.folder / "pause.go").write_text(_PAUSE)
        build = ["go", "build", "-ldflags=-s -w", "-o", "pause", "pause.go"]
        environment = {**os.environ, "CGO_ENABLED": "0"}
        subprocess.run(build, cwd=self.folder, env=environment, check=True)
        subprocess.run(["tar", "-cf", "pause.tar", "pause"], cwd=self.folder, check=True)
        for command in (
            ("append", "--new_layer=pause.tar", f"--new_tag={PAUSE}"),
            ("mutate", PAUSE, "--entrypoint=/pause", f"--tag={PAUSE}"),
        ):
            subprocess.run(
                [*self.net, crane, *command], cwd=self.folder, check=True, capture_output=True
            )
        (self.folder / "cni").mkdir()
        (self.folder / "cni/10-bridge.conflist").write_text(json.dumps({
            "cniVersion": "0.4.0", "name": "pods",
            "plugins": [
                {
                    "type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local", "ranges": [[{"subnet": PODS}]],
                        "routes": [{"dst": "0.0.0.0/0"}], "dataDir": f"{self.folder}/ipam",
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }))  # fmt: skip
        (self.folder / "containerd.toml").write_text(f"""
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/state"
[grpc]
  address = "{self.folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.folder}/cni"
""")
        self.start("containerd", "containerd", "--config=containerd.toml")
        self.until((self.folder / "containerd.sock").exists, "containerd")

    def _kubelet(self) -> Path:
        return self._write("kubelet.yaml", {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": "0.0.0.0",  # noqa: S104
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.groups[0].name}",
            "containerRuntimeEndpoint": f"unix://{self.folder}/containerd.sock",
            "failSwapOn": False, "failCgroupV1": False, "oomScoreAdj": 0, "resolvConf": "",
            "enforceNodeAllocatable": [], "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100, "nodeStatusUpdateFrequency": "2s",
        })  # fmt: skip

    def _proxy(self) -> Path:
        return self._write("proxy.yaml", {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "bindAddress": "127.0.0.1", "clientConnection": {"kubeconfig": str(self.kubeconfig)},
            "mode": "iptables", "clusterCIDR": PODS, "hostnameOverride": "node",
            "conntrack": {"maxPerCore": 0},
        })  # fmt: skip

    def _write(self, name: str, content: dict[str, object]) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return path


def _groups(name: str) -> list[Path]:
    """Make the control groups that those of all pods lie in.

    Beside whatever else the machine does pods get the cores that their limits name.
    """
    top = Path("/sys/fs/cgroup")
    unified = (top / "cgroup.controllers").exists()
    groups = [each / name for each in ([top] if unified else top.iterdir())]
    for group in groups:
        group.mkdir()
        for weight, most in (("cpu.shares", "262144"), ("cpu.weight", "10000")):
            if (group / weight).exists():
                (group / weight).write_text(most)
    return groups


@contextmanager
def node() -> Iterator[Node]:
    """Run a cluster and remove it."""
    # not in /tmp, whose path containerd's sockets would make too long
    with tempfile.TemporaryDirectory(prefix="m-", dir="/var/tmp") as folder:
        cluster = Node(Path(folder))
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.down()
