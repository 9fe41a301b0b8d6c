"""Programs that Go builds from their published modules, each once, into the cache by its version.

`python -m meadow.storage.go_tools NAME...` builds them and prints their paths.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from meadow.errors import MeadowError, run
from meadow.pipeline import atomic, cache


class GoTool(NamedTuple):
    """A main package of a Go module."""

    module: str
    version: str
    package: str = ""  # below the module


KUBERNETES, KUBERNETES_VERSION = "k8s.io/kubernetes", "v1.34.4"
TOOLS = {
    "minio": GoTool("github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"),
    "vegeta": GoTool("github.com/tsenart/vegeta/v12", "v12.12.0"),
    "docker-compose": GoTool("github.com/docker/compose/v5", "v5.1.2", "cmd"),
    "actionlint": GoTool("github.com/rhysd/actionlint", "v1.7.12", "cmd/actionlint"),
    "act": GoTool("github.com/nektos/act", "v0.2.89"),
    "kube-score": GoTool("github.com/zegl/kube-score", "v1.20.0", "cmd/kube-score"),
    "crane": GoTool("github.com/google/go-containerregistry", "v0.22.1", "cmd/crane"),
    "metrics-server": GoTool("sigs.k8s.io/metrics-server", "v0.9.0", "cmd/metrics-server"),
} | {
    name: GoTool(KUBERNETES, KUBERNETES_VERSION, f"cmd/{name}")
    for name in (
        "kube-apiserver",
        "kubectl",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
    )
}
# Kubernetes reads its version from variables that its own build scripts set.
_MAJOR, _MINOR, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
_VERSION = "k8s.io/component-base/version"
LINK = (
    f"-s -w -X {_VERSION}.gitVersion={KUBERNETES_VERSION} -X {_VERSION}.gitMajor={_MAJOR}"
    f" -X {_VERSION}.gitMinor={_MINOR}"
)


def binary(name: str) -> Path:
    """Return the path of a program of TOOLS; Go builds it where the cache does not hold it.

    Raises:
        MeadowError: no Go, or it fails.

    """
    tool = TOOLS[name]
    path = cache.folder(name) / tool.version / name
    with path.parents[1].joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be building it
        if path.exists():
            return path
        if not shutil.which("go"):
            raise MeadowError(f"{name} is built by Go, which is not there. See https://go.dev/dl.")
        print(f"Go builds {name} {tool.version}: a few minutes, once.", file=sys.stderr, flush=True)
        with atomic.whole(path.parent) as part:
            _build(tool, part.resolve() / name, part.resolve() / "module")
            shutil.rmtree(part / "module")
    return path


def _build(tool: GoTool, path: Path, folder: Path) -> None:
    """Build a package as its own repository does.

    `go install` refuses a module that replaces others, as Kubernetes does with those that it
    publishes from folders of its repository. A module of one's own with the same requirements may.
    """
    folder.mkdir(parents=True)
    downloaded = _json(folder, "mod", "download", "-json", f"{tool.module}@{tool.version}")
    shutil.copyfile(downloaded["GoMod"], folder / "go.mod")
    shutil.copyfile(Path(downloaded["Dir"], "go.sum"), folder / "go.sum")
    edits = ["-module=meadow.invalid/tool", f"-require={tool.module}@{tool.version}"]
    for entry in _json(folder, "mod", "edit", "-json").get("Replace") or []:
        if "Version" not in entry["New"]:  # a folder
            replaced = entry["Old"]["Path"]
            edits.append(f"-replace={replaced}={replaced}@v0{tool.version.removeprefix('v1')}")
    _go(folder, "mod", "edit", *edits)
    package = f"{tool.module}/{tool.package}".removesuffix("/")
    options = ["-mod=mod", "-buildvcs=false", "-trimpath", f"-ldflags={LINK}"]
    _go(folder, "build", *options, f"-o={path}", package)


def _json(folder: Path, *arguments: str) -> Any:
    return json.loads(_go(folder, *arguments))


def _go(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": ""}
    done = subprocess.run(
        ["go", *arguments], cwd=folder, env=environment,
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise MeadowError(f"`go {' '.join(arguments)}` failed:\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    run(lambda: [print(binary(name)) for name in sys.argv[1:]])
