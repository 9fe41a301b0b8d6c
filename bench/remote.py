"""Push, pull and status through DVC against a bare boto3 loop, on one MinIO server, in one run.

The loop is a process of its own, as DVC is: it uploads or downloads the same objects with as many
threads as DVC has jobs, and does nothing else: no hashing, no listing, no copy into a workspace.

    python bench/remote.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meadow.storage import dvc_git, dvc_objects
from meadow.storage.s3_remote import Remote

JOBS = 4 * (os.cpu_count() or 1)  # DVC's own default
SETS = {  # files, bytes, rounds
    "400 photos of 33 KB": (400, 33_000, 5),
    "10,000 photos of 4 KB": (10_000, 4_000, 3),
    "one model of 200 MB": (1, 200_000_000, 7),
}
LOOP = f"""
import os, sys
from concurrent.futures import ThreadPoolExecutor
import boto3
from botocore.config import Config
deed, folder, bucket, endpoint, key, secret = sys.argv[1:]
client = boto3.client(
    "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=key,
    aws_secret_access_key=secret, config=Config(max_pool_connections={JOBS}),
)
names = open("names").read().split()
def push(name):
    client.upload_file(os.path.join(folder, name), bucket, "loop/" + name)
def pull(name):
    path = os.path.join(folder, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    client.download_file(bucket, "loop/" + name, path)
with ThreadPoolExecutor({JOBS}) as pool:
    list(pool.map({{"push": push, "pull": pull}}[deed], names))
"""


def main() -> None:
    """Print medians over the rounds: seconds, and DVC's as a ratio to the loop's."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        subprocess.run(["git", "init", "-q"], check=True)
        dvc_git.dvc("init", "--quiet")
        for name in (".dvc/config", ".dvcignore"):
            shutil.copy(here / name, name)
        meadow("minio", "start")
        try:
            for name, (count, size, rounds) in SETS.items():
                rows = [measure(count, size) for _ in range(rounds)]
                median = {deed: sorted(row[deed] for row in rows)[rounds // 2] for deed in rows[0]}
                for deed, loop in (("push", "push"), ("fetch", "pull"), ("pull", "pull")):
                    ratios = sorted(row[f"dvc {deed}"] / row[f"loop {loop}"] for row in rows)
                    median[f"{deed}, ratio"] = ratios[rounds // 2]
                print(f"{name}: { ({deed: round(each, 2) for deed, each in median.items()}) }")
        finally:
            meadow("minio", "stop")


def measure(count: int, size: int) -> dict[str, float]:
    """Make a new set, push and pull it both ways; return seconds by deed."""
    folder, cache = Path("data"), Path(".dvc/cache")
    for each in (folder, cache, Path("loop")):
        shutil.rmtree(each, ignore_errors=True)
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:05}").write_bytes(os.urandom(size))
    dvc_git.dvc("add", "--quiet", str(folder))
    Path("names").write_text("\n".join(dvc_objects.names(cache)))
    store = Remote.load()
    keys = [store.settings[name] for name in ("access_key_id", "secret_access_key")]

    def loop(deed: str, where: str) -> float:
        arguments = [deed, where, store.bucket, store.endpoint, *keys]
        return timed(sys.executable, "-c", LOOP, *arguments)

    def dvc(*arguments: str) -> float:
        return timed(sys.executable, "-m", "dvc", *arguments, "--quiet")

    found = {"dvc push": dvc("push"), "loop push": loop("push", str(cache))}
    found["dvc status -c"] = dvc("status", "-c")
    shutil.rmtree(folder)
    shutil.rmtree(cache)
    # A fetch ends as the loop does, with the objects in one place; a pull also fills the workspace.
    found["dvc fetch"] = dvc("fetch")
    shutil.rmtree(cache)
    found |= {"dvc pull": dvc("pull"), "loop pull": loop("pull", "loop")}
    return found


def timed(*command: str) -> float:
    """Return the seconds that a command takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def meadow(*arguments: str) -> None:
    """Run Meadow's command."""
    subprocess.run(
        [sys.executable, "-c", "from meadow.cli import main; main()", *arguments], check=True
    )


if __name__ == "__main__":
    main()
