"""Photos a second of two Dask workers of one thread, as a share of those of two threads.

PYTHONPATH=tests python bench/dask_workers.py [COUNT [BLOCK]]    # 4000 500

The demo's drawn photos, with params.yaml as it is. Prepare's inspection, train's features and
evaluate's answers go in blocks, by threads and by workers in turn, so that a slow moment of the
machine meets both; each block of the workers has a connection and a network of its own.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copy

from dask_cluster import DaskCluster

from meadow import params
from meadow.commands.synthetic import draw_demo
from meadow.curation import discovery, inspection
from meadow.evaluation.answers import answers
from meadow.inference.classifier import Classifier
from meadow.pipeline import manifest, parallel
from meadow.pipeline.manifest import Photos
from meadow.pipeline.parallel import Machines
from meadow.prepare import prepare
from meadow.train import train
from meadow.training import features
from meadow.training.weights import Weights

ROOT = Path(__file__).parents[1]
THREADS = Machines(2)
Work = Callable[[slice, Machines], object]


def shares(works: dict[str, tuple[int, Work]], block: int, workers: Machines) -> None:
    """Print a table: the rate of each work by threads and by workers."""
    print("| photos | work | by threads, 1/s | by workers, 1/s | share |\n|--:|:--|--:|--:|--:|")
    for name, (count, work) in works.items():
        seconds = {THREADS: 0.0, workers: 0.0}
        for turn, start in enumerate(range(0, count, block)):
            for machines in sorted(seconds, key=lambda m: (m == workers) ^ turn % 2):
                started = time.perf_counter()
                work(slice(start, start + block), machines)
                seconds[machines] += time.perf_counter() - started
        rates = [count / spent for spent in seconds.values()]
        share = rates[1] / rates[0]
        print(f"| {count:,} | {name} | {rates[0]:.1f} | {rates[1]:.1f} | {share:.1%} |", flush=True)


def main() -> None:
    """Draw a set, run prepare and train once, and measure."""
    count, block = (*map(int, sys.argv[1:]), *(4000, 500)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        os.environ["MEADOW_CACHE"] = temporary + "/cache"
        copy(ROOT / "params.yaml", ".")
        Path("models/pretrained").mkdir(parents=True)
        draw_demo(Path("data/raw"), count)
        chosen = params.load()
        prepare()
        train()
        ready, model = manifest.load(), Classifier.load()
        weights = Weights.of(chosen.train.weights, chosen.train.arch)
        network, digest = features.backbone(chosen.train, weights, ready)
        raw = Path(chosen.data.dir).absolute()
        files, photos = discovery.find(raw), ready.photos("train")

        def inspect(some: slice, machines: Machines) -> None:
            work = partial(inspection.inspect, raw, preprocessing=ready.preprocessing, min_side=32)
            for _ in parallel.ordered(work, files[some], machines, title="photos"):
                pass

        def extract(some: slice, machines: Machines) -> None:
            part = Photos(photos.rows[some], photos.pixels[some], photos.targets[some])
            with tempfile.TemporaryDirectory() as cache:
                os.environ["MEADOW_CACHE"] = cache
                features.frozen(network, digest, [part], machines=machines)

        def answer(some: slice, machines: Machines) -> None:
            answers(model, raw, ready.rows[some], machines)

        with DaskCluster(Path("dask")) as cluster:
            cluster.start_worker()
            cluster.start_worker()
            workers = Machines(scheduler=cluster.address)
            list(parallel.ordered(abs, range(64), workers, title="start"))
            works: dict[str, tuple[int, Work]] = {
                "inspection": (len(files), inspect),
                "features": (len(photos.rows), extract),
                "answers": (len(ready.rows), answer),
            }
            shares(works, block, workers)


if __name__ == "__main__":
    main()
