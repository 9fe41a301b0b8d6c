"""Train the classifier: a linear head on frozen features, or all layers.

Reads:  data/prepared/ (train and val), models/pretrained/, section `train` of params.yaml.
Writes: models/classifier/ (model.onnx, weights.safetensors, model.json), and with DVCLive
        metrics/train/ (metrics.json and plots).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dvclive import Live
from numpy.typing import NDArray
from onnx import ModelProto
from safetensors.numpy import save_file

from meadow import params
from meadow.errors import run
from meadow.inference import classifier, conformal
from meadow.pipeline import atomic, manifest
from meadow.pipeline.manifest import Prepared
from meadow.training import features, onnx_graph, out_of_distribution, probe, quantization
from meadow.training.out_of_distribution import Neighbours
from meadow.training.weights import Weights

METRICS = Path("metrics/train")
Log = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Trained:
    """What either method makes: the graph, its learned tensors, how it came about, its doubts.

    `figures` are those of what was kept, which need not be the last that were logged.
    """

    network: ModelProto
    tensors: dict[str, NDArray[Any]]
    about: dict[str, Any]
    figures: dict[str, float]
    neighbours: Neighbours
    set_threshold: float


def train() -> None:
    """Run the stage."""
    chosen = params.load()
    p, workers = chosen.train, chosen.runtime.workers
    ready = manifest.load()
    weights = Weights.of(p.weights)
    # Without dvcyaml=None DVCLive would rewrite dvc.yaml.
    with Live(str(METRICS), dvcyaml=None, save_dvc_exp=False) as live:

        def log(figures: dict[str, float]) -> None:
            for name, value in figures.items():
                live.log_metric(name, value)
            live.next_step()

        trained = METHODS[p.method](p, ready, weights, workers, log)
        for name, value in trained.figures.items():
            group, key = name.split("/")
            live.summary[group][key] = value
    with atomic.whole(classifier.FOLDER) as out:
        out.mkdir()
        save_file(trained.tensors, out / "weights.safetensors")
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
    kept = ", ".join(f"{name} {value:.4g}" for name, value in trained.figures.items())
    print(f"{p.arch}, {p.method}: {kept}; in {classifier.FOLDER}")


def fit_probe(
    p: params.Train, ready: Prepared, weights: Weights, workers: int, log: Log
) -> Trained:
    """Fit a linear head on the frozen features of the train and val photos."""
    backbone, digest = features.backbone(p, weights, ready)
    examples, texture = features.examples(backbone, digest, ready, workers=workers)
    fitted = probe.fit(examples, None if p.probe.l2 == "auto" else p.probe.l2)
    for log_loss in fitted.log_loss.values():
        log({"cv/log_loss": log_loss})
    network = onnx_graph.with_head(backbone, fitted.weight, fitted.bias)
    return Trained(
        network,
        {"head.weight": fitted.weight, "head.bias": fitted.bias},
        {
            "backbone": digest,
            "l2": fitted.l2,
            "l2_chosen": p.probe.l2 == "auto",
            "temperature": round(fitted.temperature, 6),
        },
        {"cv/log_loss": fitted.log_loss[fitted.l2]},
        out_of_distribution.fit(examples.features[:, 0], texture, examples.groups, p.coverage),
        conformal.threshold(fitted.held_out, examples.targets, p.coverage),
    )


def fit_network(
    p: params.Train, ready: Prepared, weights: Weights, workers: int, log: Log
) -> Trained:
    """Train all layers on the train photos; the val photos choose the epoch."""
    from meadow.training import (  # they import PyTorch, which a probe rarely needs
        architectures,
        finetune,
    )

    size, classes = ready.preprocessing.size, len(ready.classes)
    network = architectures.build(p.arch, weights, classes=classes, size=size, seed=p.seed)
    outs = ["logits", *features.OUTPUTS]
    architectures.exported(
        architectures.WithFeatures(network), size=size, outputs=outs
    )  # or fail now
    checkpoint = finetune.checkpoint(p, weights, ready)
    learned, val = ready.photos("train"), ready.photos("val")
    kept = finetune.finetune(
        network,
        learned,
        val,
        p.finetune,
        p.seed,
        checkpoint=checkpoint,
        workers=workers,
        log=log,
    )
    graph = architectures.exported(architectures.WithFeatures(network), size=size, outputs=outs)
    if p.precision == "int8":
        graph = quantization.int8(graph, quantization.sample(learned))
    seen, vectors, texture = features.seen(graph, [learned, val], outs, workers=workers)
    logits = seen[len(learned.rows) :].astype(np.float64)
    temperature = probe.calibrate(logits, val.targets)
    groups = [row.group for row in [*learned.rows, *val.rows]]
    checkpoint.unlink(missing_ok=True)  # an equal experiment in the queue may have been faster
    return Trained(
        onnx_graph.with_temperature(graph, temperature, classes),
        {name: tensor.numpy() for name, tensor in network.backbone.state_dict().items()},
        {"epoch": kept.epoch, "temperature": round(temperature, 6)},
        kept.figures,
        out_of_distribution.fit(vectors, texture, groups, p.coverage),
        conformal.threshold(probe.softmax(logits / temperature), val.targets, p.coverage),
    )


METHODS = {"probe": fit_probe, "finetune": fit_network}

if __name__ == "__main__":
    run(train)
