"""The training methods: what each does, and what the other stages may ask of it.

A new method is a `Method` in `METHODS`, a section of params.yaml and its class in params.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from meadow.inference import conformal
from meadow.params import Runtime, Train
from meadow.pipeline.cpu import cores
from meadow.pipeline.manifest import Prepared
from meadow.pipeline.probabilities import Rows, stored
from meadow.training import features, onnx_graph, out_of_distribution, probe, quantization
from meadow.training.calibration import calibrate, cross_fitted, log_softmax
from meadow.training.out_of_distribution import Neighbours
from meadow.training.weights import Weights

Log = Callable[[dict[str, float]], None]
Direction = Literal["minimize", "maximize"]
CROSS_VALIDATED: dict[str, Direction] = {
    "cv_log_loss": "minimize",
    "cv_accuracy": "maximize",
    "cv_brier": "minimize",
    "cv_ece": "minimize",
    "cv_auroc": "maximize",
}
ON_VAL: dict[str, Direction] = {"val.log_loss": "minimize", "val.accuracy": "maximize"}


@dataclass(frozen=True)
class Trained:
    """What every method makes.

    Attributes:
        network: gives `probabilities`, `features` and `texture`.
        tensors: what was learned, by name.
        about: how it came about, for model.json.
        figures: of what was kept, by group/name; they need not be the last that were logged.
        neighbours: what a new photo is compared with.
        set_threshold: see `conformal.threshold`.
        unseen: probabilities of photos that the network did not learn from, as it answers them, (m,
            classes): of the last m train and val photos, those of `neighbours.distances`.
        held_out: log-probabilities of the train, then the val photos, (n, classes), each by a model
            that did not learn from the photo; None where there are none.

    """

    network: ModelProto
    tensors: dict[str, NDArray[Any]]
    about: dict[str, Any]
    figures: dict[str, float]
    neighbours: Neighbours
    set_threshold: float
    unseen: Rows
    held_out: NDArray[Any] | None = None


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        fit: trains; takes section `train`, the photos, what to start from, section `runtime`, and
            what gets the figures of each step.
        figures: what experiments may be selected on, the usual one first, and what is better. Those
            called cv_... are evaluate's, the others train's.

    """

    fit: Callable[[Train, Prepared, Weights, Runtime, Log], Trained]
    figures: Mapping[str, Direction]


def fit_probe(p: Train, ready: Prepared, weights: Weights, runtime: Runtime, log: Log) -> Trained:
    """Fit a linear head on the frozen features of the train and val photos."""
    backbone, digest = features.backbone(p, weights, ready)
    gpu, machines = features.by_gpu(p, weights, ready), runtime.machines
    examples, texture = features.examples(backbone, digest, ready, machines=machines, gpu=gpu)
    l2 = None if p.probe.l2 == "auto" else p.probe.l2
    head = probe.fit(examples, l2, workers=runtime.workers)
    held_out = stored(head.held_out, examples.classes)
    for log_loss in head.log_loss.values():
        log({"cv/log_loss": log_loss})
    return Trained(
        network=onnx_graph.with_head(backbone, head.weight, head.bias),
        tensors={"head.weight": head.weight, "head.bias": head.bias},
        about={
            "backbone": digest,
            "l2": head.l2,
            "temperature": round(head.temperature, 6),
            **(gpu.device.about if gpu else {}),
        },
        figures={"cv/log_loss": head.log_loss[head.l2]},
        neighbours=out_of_distribution.fit(
            examples.features, texture, examples.groups, p.coverage, workers=runtime.workers
        ),
        set_threshold=conformal.threshold(held_out, examples.targets, p.coverage),
        unseen=stored(head.as_served, examples.classes),
        held_out=head.held_out,
    )


def fit_layers(p: Train, ready: Prepared, weights: Weights, runtime: Runtime, log: Log) -> Trained:
    """Train layers on the train photos; the val photos choose the epoch.

    With pretrained weights it goes on from a probe of the train photos, and has its temperature.
    Val photos set the thresholds, each by an epoch and a temperature that it did not choose.
    """
    # PyTorch, which they import, takes longer than all the rest of a probe on cached features.
    from meadow.training import finetune, onnx_export, starting, torch_features
    from meadow.training.device import Device

    device = Device.of(p)
    size, classes = ready.preprocessing.size, len(ready.classes)
    train, val, outputs = ready.photos("train"), ready.photos("val"), ["logits", *features.OUTPUTS]
    head = starting.head(p, ready, weights, runtime)
    network, served = starting.network(p, ready, weights, head)
    onnx_export.exported(served, size=size, outputs=outputs)  # if it must fail, before training
    checkpoint = finetune.checkpoint(p, weights, ready, device)
    if runtime.processes * runtime.nodes > 1:
        from meadow.training import processes

        processes.train(p, head, checkpoint, device, runtime, log)
        log = _logged_already
    epoch, figures, val_logits = finetune.finetune(
        served, train, val, p.finetune, p.seed,
        checkpoint=checkpoint, threads=cores(runtime.workers), log=log, device=device,
    )  # fmt: skip
    graph = onnx_export.exported(served, size=size, outputs=outputs)
    if p.precision == "int8":
        graph = quantization.int8(graph, quantization.sample(train))
    if device.gpu and p.precision == "float32":
        rows = torch_features.outputs(served, features.photos_of([train, val]), device)
        all_logits, vectors, texture = map(np.stack, zip(*rows, strict=True))
    else:
        all_logits, vectors, texture = features.computed(
            graph, [train, val], outputs, machines=runtime.machines
        )
    val_logits[epoch] = all_logits[len(train.rows) :]  # those of the network that is served
    # The probe's is in its head, and a few val photos know none that is better.
    known = 1.0 if weights.loaded else None
    temperature = known or calibrate(val_logits[epoch].astype(np.float64), val.targets)
    groups = [row.group for row in [*train.rows, *val.rows]]
    fold = probe.folds(groups[len(train.rows) :], val.targets, probe.FOLDS)
    held_out = cross_fitted(val_logits, val.targets, fold, known)
    if runtime.nodes == 1:  # others with the same cache may not have read it
        checkpoint.unlink(missing_ok=True)  # an equal experiment in the queue may have been faster
    tensors = {**network.backbone.state_dict(), **dict(served.named_buffers(recurse=False))}
    return Trained(
        network=onnx_graph.with_temperature(graph, temperature, classes),
        tensors={name: tensor.cpu().contiguous().numpy() for name, tensor in tensors.items()},
        about={"epoch": epoch, "temperature": round(temperature, 6), **device.about},
        figures=figures,
        neighbours=out_of_distribution.fit(
            vectors, texture, groups, p.coverage, unseen=len(train.rows), workers=runtime.workers
        ),
        set_threshold=conformal.threshold(np.exp(held_out), val.targets, p.coverage),
        unseen=np.exp(log_softmax(val_logits[epoch].astype(np.float64) / temperature)),
    )


def _logged_already(_: dict[str, float]) -> None:
    """Log nothing."""


METHODS = {
    "probe": Method(fit_probe, CROSS_VALIDATED),
    "finetune": Method(fit_layers, ON_VAL),
}
