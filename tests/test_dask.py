"""The stages by Dask's workers: the same bytes as by threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dask_cluster import DaskCluster
from toys import SetParams

from meadow.evaluation.predictions import TEST

pytestmark = pytest.mark.slow
OUTS = ("data/prepared", "models/classifier", "metrics", "reports")


def outs() -> dict[str, bytes]:
    """Return the content of all files that the stages write."""
    return {
        str(path): path.read_bytes()
        for out in OUTS
        for path in sorted(Path(out).rglob("*"))
        if path.is_file() and "train" not in path.parts
    }


def run_stages(cache: Path) -> None:
    environment = {**os.environ, "MEADOW_CACHE": str(cache)}
    for stage in ("prepare", "train", "evaluate"):
        command = [sys.executable, "-m", f"meadow.{stage}"]
        subprocess.run(command, env=environment, check=True, timeout=300)


@pytest.mark.parametrize("method", ["probe", "finetune"])
def test_two_workers_make_the_bytes_that_threads_make(
    toy_set: Path, set_params: SetParams, tmp_path: Path, method: str
) -> None:
    """Nobody can tell from a model where its photos were seen."""
    set_params(train={"method": method})
    run_stages(tmp_path / "cache-of-threads")
    by_threads = outs()
    with DaskCluster(tmp_path / "dask") as cluster:
        cluster.start_workers(2)
        set_params(runtime={"scheduler": cluster.address})
        run_stages(tmp_path / "cache-of-workers")

    assert {"data/prepared/manifest.csv", "models/classifier/model.onnx", str(TEST)} <= set(outs())
    assert outs() == by_threads
