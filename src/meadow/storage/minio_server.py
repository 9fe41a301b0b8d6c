"""A MinIO server of one's own as the remote: on the loopback, with random keys."""

import fcntl
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from meadow.errors import MeadowError
from meadow.pipeline.ports import answers, free_port, on_loopback
from meadow.storage import go_tools, local_config
from meadow.storage.s3_remote import Remote

FOLDER = Path(".minio")
LOCK, LOG, DATA = FOLDER / "lock", FOLDER / "server.log", FOLDER / "data"
COMPOSE = "deploy/compose.yaml"
READY_WITHIN = STOP_WITHIN = 30  # seconds


def start() -> None:
    """Bring up the server of the default remote, unless it runs, and make the bucket.

    Docker Compose runs it where there is Docker, else a binary that Go builds once. Keys are made
    on the first start and written to .dvc/config.local; where the port is taken another one is
    found and written too.

    Raises:
        MeadowError: the remote is on another machine, there is neither Docker nor Go, or it fails.

    """
    store = Remote.load()
    try:
        store.make_bucket()
    except MeadowError as error:
        if not on_loopback(store.endpoint):
            raise MeadowError(f"{error} `make minio` starts a server on 127.0.0.1 only.") from None
    else:
        print(f"{store.endpoint} is up, with bucket {store.bucket!r}.")
        return
    program = None if _docker() else _binary()
    FOLDER.mkdir(exist_ok=True)
    with LOCK.open("a+") as lock:
        if not _locked(lock):
            raise MeadowError(
                "the MinIO of this project runs, but not with the address and keys of the remote"
                f" {store.name!r}. Run `make minio-stop`, then `make minio`."
            )
        lock.truncate(0)  # the process number of a server before
        keys = _keys(store)
        port = free_port(urlsplit(store.endpoint).port or 9000)
        endpoint = f"http://127.0.0.1:{port}"
        if program:
            _serve(program, endpoint, keys, lock)
        else:
            _compose("up", "--detach", "--wait", MINIO_PORT=str(port), **keys)
    if endpoint != store.settings.get("endpointurl"):
        local_config.configure(local_config.section_of(store.name), endpointurl=endpoint)
    store = Remote.load()
    store.make_bucket()
    print(
        f"MinIO is up at {endpoint}, with bucket {store.bucket!r}; its keys are in"
        f" {local_config.LOCAL}. Next: `make share`."
    )


def stop() -> None:
    """Stop the server that `start` started; its data stay.

    Raises:
        MeadowError: it is just being started.

    """
    FOLDER.mkdir(exist_ok=True)
    with LOCK.open("a+") as lock:
        if not _locked(lock):
            lock.seek(0)
            pid = lock.read()
            if not pid:
                raise MeadowError("MinIO is just being started. Run `make minio-stop` again later.")
            os.kill(int(pid), signal.SIGTERM)
            end = time.monotonic() + STOP_WITHIN
            while not _locked(lock):
                if time.monotonic() > end:
                    os.kill(int(pid), signal.SIGKILL)
                time.sleep(0.05)
        elif _docker() and _compose("ps", "--quiet"):
            _compose("down")
        else:
            print("No MinIO of this project runs.")
            return
    print("MinIO is stopped; its data stay.")


def _binary() -> Path:
    if not shutil.which("go"):
        raise MeadowError(
            "there is neither Docker nor Go to bring up a MinIO server. Install one"
            " (https://go.dev/dl), or use any S3 server: `dvc remote modify minio endpointurl"
            " URL`."
        )
    return go_tools.binary("minio")


def _keys(store: Remote) -> dict[str, str]:
    """Return the remote's keys as MinIO wants them; make and write them down if there are none."""
    settings = store.settings
    if "secret_access_key" not in settings:
        settings = {
            "access_key_id": f"meadow-{secrets.token_hex(4)}",
            "secret_access_key": secrets.token_urlsafe(24),
        }
        local_config.configure(local_config.section_of(store.name), **settings)
    return {
        "MINIO_ROOT_USER": settings["access_key_id"],
        "MINIO_ROOT_PASSWORD": settings["secret_access_key"],
    }


def _serve(program: Path, endpoint: str, keys: dict[str, str], lock: IO[str]) -> None:
    """Start the server and return when it answers.

    It inherits the lock, and the kernel frees that when it ends in whatever way: no number of a
    dead server is ever taken for that of a living one.
    """
    environment = {name: value for name, value in os.environ.items() if "MINIO" not in name}
    with LOG.open("wb") as log:
        server = subprocess.Popen(
            [program, "server", "--address", endpoint.removeprefix("http://"), DATA],
            env={**environment, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off", **keys},
            stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True, pass_fds=[lock.fileno()],
        )  # fmt: skip
    lock.write(str(server.pid))
    lock.flush()
    end = time.monotonic() + READY_WITHIN
    while server.poll() is None and time.monotonic() < end:
        if answers(f"{endpoint}/minio/health/ready"):
            return
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


def _docker() -> bool:
    """Tell whether Docker is there, with Compose and a running engine."""
    command = ["docker", "compose", "ls"]
    return (
        bool(shutil.which("docker"))
        and not subprocess.run(command, check=False, capture_output=True).returncode
    )


def _compose(*arguments: str, **environment: str) -> str:
    # Compose wants a value for each variable of the file, whatever it is to do.
    unused = dict.fromkeys(
        (
            "MINIO_ROOT_USER",
            "MINIO_ROOT_PASSWORD",
            "MEADOW_API_KEY",
            "MEADOW_VERSION",
            "MLFLOW_DATABASE_PASSWORD",
            "AIRFLOW_DATABASE_PASSWORD",
            "AIRFLOW_JWT_SECRET",
            "MEADOW_WEBHOOK_TOKEN",
        ),
        "unused",
    )
    command = ["docker", "compose", "--file", COMPOSE, "--profile", "minio", *arguments]
    return _run(command, **unused | environment)


def _run(command: list[str], **environment: str) -> str:
    done = subprocess.run(
        command, env=os.environ | environment, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise MeadowError(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
    return done.stdout
