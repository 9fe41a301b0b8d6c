"""Train the classifier with the method of params.yaml.

Reads:  data/prepared/ (train and val), models/pretrained/, section `train` of params.yaml.
Writes: models/classifier/ (model.onnx, weights.safetensors, model.json, reference.npy, and
        held_out.npy where the method is cross-validated), and with DVCLive
        metrics/train/ (metrics.json and plots).
"""

from pathlib import Path

import numpy as np
from dvclive import Live
from safetensors.numpy import save_file

from meadow import params
from meadow.errors import run
from meadow.inference import classifier
from meadow.inference.onnx_session import digest
from meadow.inference.reference import MOST, Reference
from meadow.inference.signals import DIGITS, LOOK, look
from meadow.pipeline import atomic, manifest
from meadow.pipeline.manifest import Photos, Prepared, Row
from meadow.pipeline.probabilities import likeliest
from meadow.training import onnx_graph
from meadow.training.live import sending
from meadow.training.methods import METHODS, Trained
from meadow.training.weights import Weights

METRICS = Path("metrics/train")


def train() -> None:
    """Run the stage."""
    chosen = params.load()
    p, ready = chosen.train, manifest.load()
    weights = Weights.of(p.weights, p.arch)
    # Without dvcyaml=None DVCLive would rewrite dvc.yaml.
    with (
        sending() as send,
        Live(str(METRICS), dvcyaml=None, save_dvc_exp=False) as live,
    ):

        def log(figures: dict[str, float]) -> None:
            for name, value in figures.items():
                live.log_metric(name, value)
            send(metrics=figures, step=live.step)
            live.next_step()

        trained = METHODS[p.method].fit(p, ready, weights, chosen.runtime, log)
        for name, value in trained.figures.items():
            group, key = name.split("/")
            live.summary[group][key] = value
        with atomic.whole(classifier.FOLDER) as out:
            out.mkdir()
            save_file(trained.tensors, out / "weights.safetensors")
            if trained.held_out is not None:
                np.save(out / classifier.HELD_OUT, trained.held_out)
            reference(ready, trained).save(out)
            network = onnx_graph.with_neighbours(trained.network, trained.neighbours)
            onnx_graph.save(network, out / classifier.NETWORK)
            classifier.describe(
                out,
                classes=ready.classes,
                preprocessing=ready.preprocessing,
                method=p.method,
                arch=p.arch,
                weights=weights.content,
                precision=p.precision,
                coverage=p.coverage,
                set_threshold=round(trained.set_threshold, 6),
                distance_threshold=round(trained.neighbours.threshold, 6),
                **trained.about,
            )
        send(model=digest(classifier.FOLDER / classifier.NETWORK))
    kept = ", ".join(f"{name} {value:.4g}" for name, value in trained.figures.items())
    print(f"{p.arch}, {p.method}: {kept}; in {classifier.FOLDER}")


def reference(ready: Prepared, trained: Trained) -> Reference:
    """Return what new photos are compared with, of the photos that the network did not learn from.

    Of more than `MOST` those with the least hashes are taken.
    """
    splits = ready.photos("train"), ready.photos("val")
    every = [(split, i) for split in splits for i in range(len(split.rows))]
    unseen = every[len(every) - trained.unseen.shape[0] :]
    predicted, confidence = likeliest(trained.unseen)
    chosen = sorted(range(len(unseen)), key=lambda k: _row(unseen[k]).sha256)[:MOST]
    rows = [_row(unseen[k]) for k in chosen]
    looks = [
        look(split.pixels[i], ready.preprocessing, split.rows[i].width, split.rows[i].height)
        for split, i in (unseen[k] for k in chosen)
    ]
    return Reference(
        signals={
            "confidence": confidence[chosen].round(DIGITS),
            "distance": trained.neighbours.distances[chosen].round(DIGITS),
            "bytes": np.array([row.size for row in rows], np.float64),
            **{name: np.array([values[name] for values in looks]) for name in LOOK},
        },
        actual=ready.targets(rows),
        predicted=predicted[chosen],
    )


def _row(photo: tuple[Photos, int]) -> Row:
    split, i = photo
    return split.rows[i]


if __name__ == "__main__":
    run(train)
