"""Training of layers: epochs, learning rate, the best one kept, and resuming after a kill."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  # its standard name
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from meadow.errors import MeadowError
from meadow.params import Finetune, Train
from meadow.pipeline import cache
from meadow.pipeline.manifest import Photos, Prepared
from meadow.training import shuffle
from meadow.training.data_parallel import DataParallel, trained
from meadow.training.device import CPU, Device, ahead
from meadow.training.group import Group
from meadow.training.weights import Weights

# A run of other code is another run.
CODE = (
    *("finetune", "data_parallel", "device", "group", "shuffle", "architectures", "onnx_export"),
    *("starting", "features", "probe", "softmax_regression", "calibration"),  # the first head
)
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "scipy", "onnxruntime")
WARMUP = 0.1  # share of the steps in which the learning rate rises
Log = Callable[[dict[str, float]], None]


@dataclass
class State:
    """Where a run stands after an epoch: all that it needs to go on to the same bytes.

    Attributes:
        history: figures of each epoch.
        val_logits: of the val photos after each epoch, (n, classes) each.
        best: number of the best epoch.
        best_weights: state of the network after it.
        weights: state of the network.
        optimizer: state of the optimizer.

    """

    history: list[dict[str, float]]
    val_logits: list[Tensor]
    best: int
    best_weights: dict[str, Tensor]
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


def finetune(
    network: nn.Module,
    train: Photos,
    val: Photos,
    p: Finetune,
    seed: int,
    *,
    checkpoint: Path,
    threads: int,
    log: Log,
    device: Device = CPU,
    group: Group | None = None,
) -> tuple[int, dict[str, float], NDArray[np.float32]]:
    """Train; leave the network with the weights of the epoch with the least val log-loss.

    The weights of an epoch are their mean with those that training started from, by `p.average`.

    Args:
        network: gives logits first; trained in place, as far as it is not frozen.
        train: the photos to learn from.
        val: the photos to choose the epoch by.
        p: how; params.yaml says what each key means.
        seed: of the order of the photos and of augmentation.
        checkpoint: written after each epoch; a run that finds it goes on from there.
        threads: of this process.
        log: gets the figures of each epoch, on a resume also those of the epochs before.
        device: what computes; the network is brought there, and back to the CPU in the end.
        group: the processes that train together; all return the same.

    Returns:
        The number of that epoch, its figures, and the logits of the val photos after each epoch,
        (epochs, n, classes).

    Raises:
        MeadowError: the loss is not finite any more, the device's memory ends, or the processes
            train different things.

    """
    group = group or Group()
    group.agree(checkpoint.name)
    network.to(device.kind).to(memory_format=device.memory_format)
    group.equal(list(network.state_dict().values()))
    optimizer = _optimizer(network, p)
    state = State([], [], 0, {}, {}, {})
    first = _weights(network)
    if checkpoint.exists():
        state = State(**torch.load(checkpoint, device.kind, weights_only=True))
    state = group.newest(state, len(state.history))
    if state.history:
        network.load_state_dict(state.weights)
        optimizer.load_state_dict(state.optimizer)
        for figures in state.history:
            log(figures)
    replicas = DataParallel(network, threads, device, group)
    targets = torch.from_numpy(val.targets)
    start = len(state.history)
    hidden = None if group.writes else True
    epochs = tqdm(range(start, p.epochs), "finetune", p.epochs, initial=start, disable=hidden)
    for epoch in epochs:
        if epoch - state.best > p.patience:
            break
        loss = _epoch(replicas, optimizer, train, p, seed, epoch)
        weights = _weights(network)
        averaged = {
            name: torch.lerp(first[name], value, 1 - p.average)
            if value.is_floating_point()
            else value
            for name, value in weights.items()
        }
        network.load_state_dict(averaged)
        logits = replicas.outputs(
            len(targets), lambda net, part: net(device.sent(_pixels(val, part)))[0]
        ).cpu()
        network.load_state_dict(weights)
        figures = {
            "train/log_loss": loss,
            "val/log_loss": float(F.cross_entropy(logits.double(), targets)),
            "val/accuracy": float((logits.argmax(1) == targets).double().mean()),
        }
        if not all(map(math.isfinite, figures.values())):
            raise MeadowError(
                f"epoch {epoch}: the loss is not finite at train.finetune.lr {p.lr}. Lower it, and"
                " run `dvc repro` again."
            )
        log(figures)
        epochs.set_postfix(figures)
        if all(figures["val/log_loss"] < before["val/log_loss"] for before in state.history):
            state.best, state.best_weights = epoch, averaged
        state.history.append(figures)
        state.val_logits.append(logits)
        state.weights, state.optimizer = weights, optimizer.state_dict()
        if group.writes:
            with cache.writing(checkpoint) as part:
                torch.save(vars(state), part)
    network.load_state_dict(state.best_weights)
    network.to("cpu").to(memory_format=torch.contiguous_format)
    logits = torch.stack([logits.cpu() for logits in state.val_logits])
    return state.best, state.history[state.best], logits.numpy()


def checkpoint(p: Train, weights: Weights, ready: Prepared, device: Device = CPU) -> Path:
    """Return the file for the state of a run; its name is the content of all that decides it.

    What is decided after training, such as the precision, is not in it: two runs that differ in
    that alone share their epochs, which are the same bytes.
    """
    photos = [
        (row.pixels_sha256, row.label, row.split) for row in ready.rows if row.split != "test"
    ]
    code = [Path(__file__).with_name(f"{name}.py").read_text("utf-8") for name in CODE]
    versions = [version(library) for library in LIBRARIES]
    run = (p.arch, weights.content, photos, p.finetune, p.seed, device.key)
    key = repr((run, code, versions))
    return cache.folder("checkpoints") / f"{hashlib.sha256(key.encode()).hexdigest()}.pt"


def _epoch(
    replicas: DataParallel,
    optimizer: torch.optim.Optimizer,
    train: Photos,
    p: Finetune,
    seed: int,
    epoch: int,
) -> float:
    """Train for one epoch; return the mean loss."""
    n = len(train.targets)
    steps = -(-n // p.batch_size)
    edges = [n * step // steps for step in range(steps + 1)]
    sizes = np.diff(edges).tolist()
    shares = [replicas.share(size) for size in sizes]  # of each batch, what this process computes
    # All draws of an epoch are made here, so that they depend on nothing but seed and epoch.
    rng = np.random.default_rng([seed, epoch])
    extent = shuffle.Sizes.of(math.prod(train.pixels.shape[1:]))
    order = shuffle.order(rng, n, extent)
    warps = _warps(rng, n, p.augment)
    device, targets = replicas.device, torch.from_numpy(train.targets)
    places = [
        slice(at + part.start, at + part.stop) for at, part in zip(edges, shares, strict=False)
    ]
    photos = shuffle.read(train.pixels, order, places, extent)
    losses = []

    def load(batch: tuple[slice, NDArray[np.uint8]]) -> list[Tensor]:
        place, pixels = batch
        rows = order[place]
        return [
            device.pinned(one) for one in (torch.from_numpy(pixels), warps[rows], targets[rows])
        ]

    loaded = ahead(load, zip(places, photos, strict=True))
    for step, (size, share, batch) in enumerate(zip(sizes, shares, loaded, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = p.lr * _rate((epoch + step / steps) / p.epochs)

        def loss(
            net: nn.Module, part: slice, batch: list[Tensor] = batch, first: int = share.start
        ) -> Tensor:
            mine = slice(part.start - first, part.stop - first)
            pixels, matrices, targets = (device.sent(one[mine]) for one in batch)
            photos = _warped(pixels, matrices) if p.augment else pixels
            logits = net(photos)[0].float()
            return F.cross_entropy(
                logits, targets, reduction="sum", label_smoothing=p.label_smoothing
            )

        drops = seed + (epoch * steps + step) * 1000
        losses.append(replicas.backward(size, loss, drops))
        optimizer.step()
    # Read at the end alone: whoever reads a tensor waits until the GPU has computed it.
    return sum(size * float(one) for size, one in zip(sizes, losses, strict=True)) / n


def _rate(done: float) -> float:
    """Share of the highest learning rate when this share of the run is done."""
    if done < WARMUP:
        return (done + 1e-3) / (WARMUP + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - WARMUP) / (1 - WARMUP)))


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def _optimizer(network: nn.Module, p: Finetune) -> torch.optim.Optimizer:
    """AdamW; biases and normalisation layers are not decayed."""
    weights = trained(network)
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": p.weight_decay},
        {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=p.lr)


def _pixels(photos: Photos, rows: slice) -> Tensor:
    return torch.from_numpy(photos.pixels[rows])


def _warps(rng: np.random.Generator, n: int, strength: float) -> Tensor:
    """Draw a flip, a zoom in, a stretch and a shift for each photo: affine matrices, (n, 2, 3)."""
    zoom = 1 - 0.35 * strength * rng.random((n, 1))
    stretch = 1 + 0.15 * strength * (rng.random((n, 2)) - 0.5)
    scale = zoom * stretch
    shift = (1 - scale).clip(0) * (2 * rng.random((n, 2)) - 1)
    flip = np.where(rng.random(n) < 0.5 * strength, -1.0, 1.0)
    matrix = np.zeros((n, 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 1, 1] = flip * scale[:, 0], scale[:, 1]
    matrix[:, :, 2] = shift
    return torch.from_numpy(matrix)


def _warped(pixels: Tensor, matrices: Tensor) -> Tensor:
    """Warp pixels, (n, size, size, 3), by affine matrices, (n, 2, 3); bilinear, edges mirrored."""
    photos = pixels.permute(0, 3, 1, 2).float()
    grid = F.affine_grid(matrices, list(photos.shape), align_corners=False)
    warped = F.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
    return warped.permute(0, 2, 3, 1)
