"""A MinIO server of one's own as the remote: on the loopback, with random keys."""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from meadow.errors import MeadowError
from meadow.pipeline import atomic, cache
from meadow.pipeline.ports import free_port
from meadow.storage import s3_remote
from meadow.storage.s3_remote import Remote

MODULE = "github.com/minio/minio"
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"  # of the Go module; MinIO publishes no binaries
FOLDER = Path(".minio")
LOCK, LOG, DATA = FOLDER / "lock", FOLDER / "server.log", FOLDER / "data"
COMPOSE = Path("deploy/compose.yaml")
READY_WITHIN = STOP_WITHIN = 30  # seconds


def start() -> None:
    """Bring up the server of the default remote, unless it runs, and make the bucket.

    A `minio` on PATH is used, else Docker, else Go builds it once. Keys are made on the first start
    and written to .dvc/config.local; where the port is taken another one is found and written too.

    Raises:
        MeadowError: the remote is on another machine, none of the three is there, or it fails.

    """
    store = Remote.load()
    try:
        store.make_bucket()
    except MeadowError as error:
        host = urlsplit(store.endpoint).hostname
        if host not in ("127.0.0.1", "localhost"):
            raise MeadowError(f"{error} `make minio` starts a server on 127.0.0.1 only.") from None
    else:
        print(f"{store.endpoint} is up, with bucket {store.bucket!r}.")
        return
    FOLDER.mkdir(exist_ok=True)
    with LOCK.open("a") as lock:
        if not _locked(lock):
            raise MeadowError(
                "the MinIO of this project runs, but not with the address and keys of the remote"
                f" {store.name!r}. Run `make minio-stop`, then `make minio`."
            )
        endpoint = _start(_with_keys(store), lock)
    if endpoint != store.settings.get("endpointurl"):
        s3_remote.configure(s3_remote.section_of(store.name), endpointurl=endpoint)
    store = Remote.load()
    store.make_bucket()
    print(
        f"MinIO is up at {endpoint}, with bucket {store.bucket!r}; its data are in {FOLDER}, its"
        f" keys in {s3_remote.LOCAL}. Next: `make share`."
    )


def stop() -> None:
    """Stop the server that `start` started; its data stay."""
    FOLDER.mkdir(exist_ok=True)
    with LOCK.open("a+") as lock:
        if not _locked(lock):
            lock.seek(0)
            pid = int(lock.read())
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + STOP_WITHIN
            while not _locked(lock):
                if time.monotonic() > end:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        elif _docker() and _compose("ps", "--quiet"):
            _compose("down")
        else:
            print("No MinIO of this project runs.")
            return
    print(f"MinIO is stopped; its data stay in {FOLDER}.")


def binary() -> Path:
    """Return MinIO's binary, built by Go where the cache does not hold it.

    Raises:
        MeadowError: no Go, or it fails.

    """
    path = cache.folder("minio") / VERSION / "minio"
    with path.parents[1].joinpath("lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another project may be building it
        if not path.exists():
            _build(path)
    return path


def _with_keys(store: Remote) -> Remote:
    """Return the remote with keys in its settings, made and written down if there are none."""
    if "secret_access_key" not in store.settings:
        keys = {
            "access_key_id": f"meadow-{secrets.token_hex(4)}",
            "secret_access_key": secrets.token_urlsafe(24),
        }
        s3_remote.configure(s3_remote.section_of(store.name), **keys)
        return replace(store, settings=store.settings | keys)
    return store


def _start(store: Remote, lock: IO[str]) -> str:
    """Start the server; return its URL when it answers."""
    keys = {
        "MINIO_ROOT_USER": store.settings["access_key_id"],
        "MINIO_ROOT_PASSWORD": store.settings["secret_access_key"],
    }
    port = free_port(urlsplit(store.endpoint).port or 9000)
    endpoint = f"http://127.0.0.1:{port}"
    program = shutil.which("minio")
    if not program and _docker():
        _compose("up", "--detach", "--wait", MINIO_PORT=str(port), **keys)
        return endpoint
    command = [program or str(binary()), "server", "--address", f"127.0.0.1:{port}", str(DATA)]
    environment = {name: value for name, value in os.environ.items() if "MINIO" not in name}
    environment |= {"MINIO_BROWSER": "off", "MINIO_UPDATE": "off", **keys}
    with LOG.open("wb") as log:
        # The server inherits the lock, and with its last breath gives it up: no pid of a dead
        # server is ever taken for a living one.
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, pass_fds=[lock.fileno()],
        )  # fmt: skip
    lock.truncate(0)
    lock.write(str(server.pid))
    lock.flush()
    end = time.monotonic() + READY_WITHIN
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"{endpoint}/minio/health/ready", timeout=1):  # noqa: S310
                return endpoint
        except OSError:
            time.sleep(0.05)
    server.kill()
    raise MeadowError(f"MinIO did not start:\n{LOG.read_text('utf-8', 'replace')[-2000:]}")


def _locked(lock: IO[str]) -> bool:
    """Take the lock that a running server holds; return whether it was free."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _build(path: Path) -> None:
    if not shutil.which("go"):
        raise MeadowError(
            "there is neither `minio` nor Docker nor Go to bring up a MinIO server. Install one"
            " (https://go.dev/dl), or use any S3 server: `dvc remote modify minio endpointurl URL`."
        )
    print(f"Go builds MinIO {VERSION}: a few minutes, once.", flush=True)
    with atomic.whole(path.parent) as part:
        done = subprocess.run(
            ["go", "install", f"{MODULE}@{VERSION}"],
            env={**os.environ, "GOBIN": str(part.resolve()), "CGO_ENABLED": "0"},
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise MeadowError(f"`go install {MODULE}@{VERSION}` failed:\n{done.stderr[-2000:]}")


def _docker() -> bool:
    """Tell whether Docker is there, with Compose and a running engine."""
    if not shutil.which("docker"):
        return False
    return all(
        subprocess.run(["docker", *arguments], check=False, capture_output=True).returncode == 0
        for arguments in (["compose", "version"], ["info"])
    )


def _compose(*arguments: str, **environment: str) -> str:
    keys = {"MINIO_ROOT_USER": "unused", "MINIO_ROOT_PASSWORD": "unused"}  # by all but `up`
    done = subprocess.run(
        ["docker", "compose", "--file", str(COMPOSE), *arguments],
        env={**os.environ, **keys, **environment},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise MeadowError(f"`docker compose {' '.join(arguments)}` failed:\n{done.stderr[-2000:]}")
    return done.stdout
