"""Photos a second of two Dask workers of one thread, as a share of those of two threads.

In a project in which prepare and train have run:

    PYTHONPATH=tests python bench/dask_workers.py [BLOCK]    # 500

Prepare's inspection, train's features and evaluate's answers go in blocks of photos, by threads and
by workers in turn, so that a slow moment of the machine meets both. Each block of the workers has a
connection of its own, and the network is sent for it.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from dask_cluster import DaskCluster

from meadow import params
from meadow.curation import discovery, inspection
from meadow.evaluation.answers import answers
from meadow.inference.classifier import Classifier
from meadow.pipeline import manifest, parallel
from meadow.pipeline.manifest import Photos
from meadow.pipeline.parallel import Machines
from meadow.training import features
from meadow.training.weights import Weights

Work = Callable[[slice, Machines], object]


def works() -> dict[str, tuple[int, Work]]:
    """Return what is measured: the number of photos, and what is done on a slice of them."""
    chosen, ready, model = params.load(), manifest.load(), Classifier.load()
    weights = Weights.of(chosen.train.weights, chosen.train.arch)
    network, digest = features.backbone(chosen.train, weights, ready)
    raw = Path(chosen.data.dir).absolute()
    files, photos = discovery.find(raw), ready.photos("train")
    look = partial(inspection.inspect, raw, preprocessing=ready.preprocessing, min_side=32)

    def inspect(some: slice, machines: Machines) -> None:
        for _ in parallel.ordered(look, files[some], machines, title="photos"):
            pass

    def extract(some: slice, machines: Machines) -> None:
        part = Photos(photos.rows[some], photos.pixels[some], photos.targets[some])
        with tempfile.TemporaryDirectory() as cache:
            os.environ["MEADOW_CACHE"] = cache
            features.frozen(network, digest, [part], machines=machines)

    def answer(some: slice, machines: Machines) -> None:
        for _ in answers(model, raw, ready.rows[some], machines):
            pass

    return {
        "inspection": (len(files), inspect),
        "features": (len(photos.rows), extract),
        "answers": (len(ready.rows), answer),
    }


def main() -> None:
    """Print a table."""
    block = int([*sys.argv, "500"][1])
    measured = works()
    with tempfile.TemporaryDirectory() as folder, DaskCluster(Path(folder)) as cluster:
        cluster.start_workers(2)
        threads, workers = Machines(2), Machines(scheduler=cluster.address)
        for _, work in measured.values():  # the first ones import, and open sessions
            work(slice(64), workers)
        print(
            "| photos | work | by threads, 1/s | by workers, 1/s | share |\n|--:|:--|--:|--:|--:|"
        )
        for name, (count, work) in measured.items():
            seconds = {threads: 0.0, workers: 0.0}
            for turn, start in enumerate(range(0, count, block)):
                for machines in (threads, workers)[:: 1 if turn % 2 else -1]:
                    started = time.perf_counter()
                    work(slice(start, start + block), machines)
                    seconds[machines] += time.perf_counter() - started
            rates = [count / spent for spent in seconds.values()]
            row = f"{rates[0]:.1f} | {rates[1]:.1f} | {rates[1] / rates[0]:.1%}"
            print(f"| {count:,} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
