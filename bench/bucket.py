"""Prepare from a bucket of a MinIO on this machine, and from a folder: the same drawn photos.

Run it as `python bench/bucket.py [COUNT ...]`. Each round runs both; medians of three rounds. The
server shares the processor's cores with prepare.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from servers import KEY, SECRET, Server

from meadow.commands.synthetic import draw_demo

ROOT = Path(__file__).parents[1]
ROUNDS = 3


def main() -> None:
    """Print a table."""
    counts = [int(count) for count in sys.argv[1:]] or [400, 4000]
    print("| photos | folder, s | bucket, s | speed |\n|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as temporary:
        server = Server(Path(temporary, "minio"))
        for count in counts:
            local, remote = (project(Path(temporary, f"{count}-{kind}")) for kind in "lr")
            draw_demo(local / "data/raw", count)
            bucket = f"photos-{count}"
            fill(server, bucket, local / "data/raw")
            parameters = (remote / "params.yaml").read_text("utf-8")
            address = parameters.replace("dir: data/raw ", f"dir: s3://{bucket}/set ")
            (remote / "params.yaml").write_text(address, "utf-8")
            seconds = [(prepare(local, server), prepare(remote, server)) for _ in range(ROUNDS)]
            folder, of_bucket = (sorted(kind)[ROUNDS // 2] for kind in zip(*seconds, strict=True))
            print(f"| {count} | {folder:.2f} | {of_bucket:.2f} | {folder / of_bucket:.2f} |")
            same = ["diff", "-r", str(local / "data/prepared"), str(remote / "data/prepared")]
            subprocess.run(same, check=True)
        server.kill()


def project(folder: Path) -> Path:
    """Make a folder that prepare can run in."""
    for name in ("data", "metrics", ".dvc"):
        (folder / name).mkdir(parents=True)
    for name in ("params.yaml", "data/overrides.csv"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def fill(server: Server, bucket: str, folder: Path) -> None:
    """Copy a set into a new bucket."""
    client = server.client()
    client.create_bucket(Bucket=bucket)

    def put(file: Path) -> None:
        key = f"set/{file.relative_to(folder).as_posix()}"
        client.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, folder.rglob("*.jpg")))


def prepare(folder: Path, server: Server) -> float:
    """Run prepare; return its seconds."""
    keys = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_ACCESS_KEY_ID": KEY}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "meadow.prepare"],
        cwd=folder, env={**os.environ, **keys, "AWS_SECRET_ACCESS_KEY": SECRET},
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
