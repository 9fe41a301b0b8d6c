"""deploy/feast: exports of two commits in MinIO, read by Feast itself, and online from Redis."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clones import ROOT, copied, runner
from environments import environment
from pyarrow import parquet
from ruamel.yaml import YAML
from servers import KEY, SECRET, Server, meadow
from tools import need

from meadow.pipeline.ports import free_port
from meadow.serving.parent import end_with_parent

pytestmark = pytest.mark.slow
LOCK = ROOT / "deploy/feast/requirements.lock.txt"
READ = """
import json, statistics, sys, time
import pandas as pd
from feast import FeatureStore
photos, times = json.loads(sys.argv[1])
store = FeatureStore(".")
names = ["photo_features:label", "photo_features:vector"]
then = pd.concat(
    pd.DataFrame({"photo": photos, "event_timestamp": pd.Timestamp(time)}) for time in times
)
offline = store.get_historical_features(then, names).to_df()
rows, took = [{"photo": photo} for photo in photos], []
for _ in range(100):
    start = time.perf_counter()
    online = store.get_online_features(names, rows[:1])
    took.append(time.perf_counter() - start)
online = store.get_online_features(names, rows).to_dict()
print(f"{1000 * statistics.median(took):.2f} ms a lookup", file=sys.stderr)
print(json.dumps({
    "offline": {
        str(time): {row.photo: [row.label, row.vector.tolist()] for row in some.itertuples()}
        for time, some in offline.groupby("event_timestamp")
    },
    "online": {
        photo: [label, vector]
        for photo, label, vector in zip(online["photo"], online["label"], online["vector"])
    },
}))
"""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """Return the address of a Redis server."""
    need("Redis")
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, preexec_fn=end_with_parent
    )
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    """Return a MinIO server with a bucket."""
    server = Server(tmp_path / "minio")
    server.client().create_bucket(Bucket="meadow")
    yield server
    server.kill()


def test_feast_gives_what_a_commit_had(
    first_run: Path, tmp_path: Path, store: Server, redis: str
) -> None:
    """Offline as of each of two commits, online as of the last: to the bit what the files have."""
    programs = environment("feast", LOCK)
    project = copied(first_run, tmp_path / "project")
    run, yaml = runner(project), YAML()
    values = yaml.load(project / "params.yaml")
    values["train"]["method"] = "probe"
    yaml.dump(values, project / "params.yaml")
    exports: list[dict[str, list[Any]]] = []
    times: list[str] = []
    relabelled: dict[str, str] = {}
    for number in range(2):
        if relabelled:
            run(*meadow("review", relabelled["path"], "--relabel", "moss"))
        run("dvc", "repro", "prepare")
        with (project / "data/prepared/manifest.csv").open(newline="") as file:
            rows = csv.DictReader(file)
            relabelled = next(r for r in rows if (r["split"], r["label"]) == ("train", "gold"))
        date = f"2026-01-0{number + 1}T12:00:00+00:00"
        run("git", "commit", "-qam", "a commit", GIT_COMMITTER_DATE=date)
        printed = run(*meadow("features", "export", "table.parquet"))
        assert "table.parquet: " in printed
        table = parquet.read_table(project / "table.parquet").to_pylist()
        exports.append({row["photo"]: [row["label"], row["vector"]] for row in table})
        times.append(date.replace("12:00", "13:00"))
        store.client().upload_file(
            str(project / "table.parquet"), "meadow", f"features/{number}.parquet"
        )

    folder = Path(shutil.copytree(ROOT / "deploy/feast", tmp_path / "feast"))
    settings = {
        **os.environ,
        "PYTHONPATH": "",
        "FEAST_REGISTRY": str(tmp_path / "registry.db"),
        "FEAST_REDIS": redis,
        "FEAST_USAGE": "False",
        "MEADOW_FEATURES": "s3://meadow/features",
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    def feast(*command: str) -> str:
        done = subprocess.run(
            command, cwd=folder, env=settings, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        print(done.stderr)
        return done.stdout

    feast(f"{programs}/feast", "apply")
    feast(f"{programs}/feast", "materialize", "2026-01-01T00:00:00", "2026-01-03T00:00:00")
    photos = sorted(exports[0].keys() & exports[1].keys())
    answer = json.loads(feast(f"{programs}/python", "-c", READ, json.dumps([photos, times])))
    offline = list(answer["offline"].values())

    changed = [photo for photo in photos if exports[0][photo][0] != exports[1][photo][0]]
    assert len(changed) == 1
    assert offline == [{photo: export[photo] for photo in photos} for export in exports]
    assert answer["online"] == {photo: exports[1][photo] for photo in photos}
