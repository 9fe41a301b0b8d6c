"""Fine-tuning learns, by the schedule that it says; break any part of it, and a test fails."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from toys import SetParams

from meadow import params
from meadow.params import Finetune
from meadow.pipeline import manifest
from meadow.pipeline.manifest import Photos, Row
from meadow.prepare import prepare
from meadow.training import finetune, starting
from meadow.training.data_parallel import DataParallel
from meadow.training.device import CPU, Device
from meadow.training.weights import Weights

SIDE = 8
P = Finetune(
    epochs=4,
    patience=4,
    batch_size=16,
    lr=0.02,
    weight_decay=0.0,
    label_smoothing=0.0,
    augment=0.0,
    frozen=0.0,
    average=0.0,
)


def changed(**values: float) -> Finetune:
    """Return the parameters with other values."""
    return P.model_copy(update=values)


def toys(n: int, seed: int = 0) -> Photos:
    """Draw two classes of noise, of which the second is a little brighter."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    noise = rng.integers(0, 200, (n, SIDE, SIDE, 3))
    rows = [Row(str(i), "ab"[i % 2], "train", str(i), "", str(i), 1, 1, 1) for i in range(n)]
    return Photos(rows, (noise + 30 * targets[:, None, None, None]).astype(np.uint8), targets)


class Small(nn.Module):
    """A linear network with batch norm; it can record what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 2)

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.last(self.norm(pixels.float().mean((1, 2)) / 255)),)


class Recorded:
    """Stands in for the replicas: runs each shard once, and keeps what the optimizer would see."""

    device = CPU

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.seeds: list[int] = []

    def share(self, size: int) -> slice:
        return slice(0, size)

    def backward(self, size: int, _loss: object, seed: int) -> Tensor:
        self.sizes.append(size)
        self.seeds.append(seed)
        return torch.ones(())


def rates(p: Finetune, photos: int) -> tuple[list[float], list[int], list[int]]:
    """Return the learning rate of each step of a run, the sizes of its batches, and its seeds."""
    network, seen, recorded = Small(), [], Recorded()
    optimizer = finetune._optimizer(network, p)
    optimizer.step = lambda: seen.append(optimizer.param_groups[0]["lr"])  # type: ignore[method-assign,assignment]
    for epoch in range(p.epochs):
        finetune._epoch(recorded, optimizer, toys(photos), p, 0, epoch)  # type: ignore[arg-type]
    return seen, recorded.sizes, recorded.seeds


def test_the_rate_warms_up_and_falls_as_a_cosine_to_nothing() -> None:
    """A tenth of the run up to the highest, then half a cosine; each step has its own."""
    seen, _, _ = rates(changed(epochs=10), photos=160)
    warm, fall = seen[:10], seen[10:]

    assert len(seen) == 100
    assert warm[0] < 0.02 * P.lr
    assert np.allclose(np.diff(warm), np.diff(warm)[0])
    assert fall[0] == pytest.approx(P.lr)
    assert fall == pytest.approx([P.lr * (1 + math.cos(math.pi * i / 90)) / 2 for i in range(90)])


def test_batches_are_of_the_size_that_was_asked_for() -> None:
    """50 photos by 16: four nearly equal batches, each with other units dropped."""
    _, sizes, seeds = rates(changed(epochs=1, batch_size=16), photos=50)

    assert sizes == [12, 13, 12, 13]
    assert len(set(seeds)) == len(seeds)


def test_matrices_are_decayed_and_biases_and_norms_are_not() -> None:
    """By AdamW, whose decay does not pass through the gradients."""
    network = Small()
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimizer = finetune._optimizer(network, changed(weight_decay=0.5, lr=0.1))
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    assert isinstance(optimizer, torch.optim.AdamW)
    for name, value in network.named_parameters():
        share = 0.95 if name == "last.weight" else 1
        assert torch.allclose(value, share * before[name])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_label_smoothing_gives_a_share_to_all_classes(smoothing: float) -> None:
    """The loss of an epoch without learning is the cross-entropy with smoothed targets."""
    photos, network = toys(32), Small()
    (logits,) = network.train()(torch.from_numpy(photos.pixels))
    # 16 photos a shard, each with batch-norm statistics of its own
    replicas, optimizer = DataParallel(network, 1), torch.optim.SGD(network.parameters(), lr=0.0)
    p = changed(batch_size=32, lr=1e-12, label_smoothing=smoothing)
    order = np.random.default_rng([0, 0]).permutation(32)
    shards = [order[:16], order[16:]]
    log_p = torch.cat(
        [network(torch.from_numpy(photos.pixels[rows]))[0].log_softmax(1) for rows in shards]
    )
    smooth = np.eye(2)[photos.targets[order]] * (1 - smoothing) + smoothing / 2
    expected = -(torch.from_numpy(smooth) * log_p).sum(1).mean().item()

    assert len(logits) == 32
    assert finetune._epoch(replicas, optimizer, photos, p, 0, 0) == pytest.approx(expected, 1e-5)


def warps(strength: float) -> NDArray[np.float32]:
    matrices: NDArray[np.float32] = finetune._warps(
        np.random.default_rng(0), 20_000, strength
    ).numpy()
    return matrices


def test_augmentation_flips_zooms_stretches_and_shifts() -> None:
    """By the ranges that its strength stands for, and never beyond the photo."""
    half, full = warps(0.5), warps(1.0)
    scale = np.abs(full[:, [0, 1], [0, 1]])
    shift = full[:, :, 2]

    assert np.mean(half[:, 0, 0] < 0) == pytest.approx(0.25, abs=0.02)
    assert np.mean(full[:, 0, 0] < 0) == pytest.approx(0.5, abs=0.02)
    assert (full[:, 1, 1] > 0).all(), "photos are never turned upside down"
    assert 0.6 < scale.min() < 0.62
    assert 1.06 < scale.max() < 1.08
    assert np.abs(scale[:, 0] / scale[:, 1] - 1).max() > 0.13
    assert (np.abs(shift) <= np.maximum(1 - scale, 0) + 1e-6).all()
    assert np.abs(shift).max() > 0.35
    assert (full[:, 0, 1] == 0).all()


def test_no_augmentation_is_none() -> None:
    """Strength 0 leaves every pixel as it is."""
    pixels = torch.from_numpy(toys(4).pixels)
    matrices = torch.from_numpy(warps(0.0)[:4])

    assert torch.allclose(finetune._warped(pixels, matrices), pixels.float(), atol=1e-3)


def test_a_warp_is_what_its_matrix_says() -> None:
    """A flip mirrors left and right; a zoom by two shows the middle."""
    pixels = torch.from_numpy(toys(1).pixels)
    flip = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    zoom = torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]])
    middle = pixels[:, 2:6, 2:6].float()
    larger = finetune._warped(pixels, zoom)

    assert torch.allclose(finetune._warped(pixels, flip), pixels.flip(2).float(), atol=1e-3)
    assert larger.mean().item() == pytest.approx(middle.mean().item(), abs=5)
    assert larger.std() < pixels.float().std()


def test_photos_are_augmented_and_shuffled_anew_in_each_epoch() -> None:
    """The same photo twice is another picture, at another place."""
    network, inputs = Small(), []
    replicas, optimizer = DataParallel(network, 1), finetune._optimizer(network, P)
    replica = replicas.idle.get()
    replica.register_forward_pre_hook(lambda _, given: inputs.append(given[0].clone()))
    replicas.idle.put(replica)
    for epoch in (0, 1):
        finetune._epoch(replicas, optimizer, toys(16), changed(augment=1.0), 0, epoch)
    finetune._epoch(replicas, optimizer, toys(16), P, 0, 0)
    means = [photos.float().mean((1, 2, 3)).sort().values for photos in inputs]
    plain = torch.from_numpy(toys(16).pixels).float().mean((1, 2, 3))

    assert not torch.allclose(means[0], means[1], atol=0.1)
    assert not torch.allclose(means[0], plain.sort().values, atol=0.1)
    assert torch.allclose(means[2], plain.sort().values, atol=0.1)
    assert not torch.allclose(inputs[2].float().mean((1, 2, 3)), plain, atol=0.1)


def run(p: Finetune, checkpoint: Path, seed: int = 0) -> tuple[list[dict[str, float]], nn.Module]:
    network = Small()
    history: list[dict[str, float]] = []
    finetune.finetune(
        network, toys(128), toys(64, seed=1), p, seed,
        checkpoint=checkpoint, threads=1, log=history.append,
    )  # fmt: skip
    return history, network


def test_it_learns(tmp_path: Path) -> None:
    """The loss falls, and the accuracy on photos that it did not see beats the prior by far."""
    history, _ = run(changed(epochs=12), tmp_path / "c.pt")

    assert history[-1]["train/log_loss"] < 0.6 * history[0]["train/log_loss"]
    assert history[-1]["val/log_loss"] < 0.4 < math.log(2)
    assert history[-1]["val/accuracy"] > 0.9


def test_no_learning_is_no_learning(tmp_path: Path) -> None:
    """Next to no learning rate: the oracle of the test above could fail."""
    history, _ = run(changed(epochs=2, lr=1e-9), tmp_path / "c.pt")

    assert history[-1]["val/log_loss"] > 0.5


@pytest.mark.parametrize("lr", [0.02, 30.0], ids=["a late one", "an early one"])
def test_the_weights_are_those_of_the_best_epoch(tmp_path: Path, lr: float) -> None:
    """A rate far too high makes the last epoch worse than one before."""
    history, network = run(changed(epochs=6, patience=6, lr=lr), tmp_path / "c.pt")
    losses = [figures["val/log_loss"] for figures in history]
    val = toys(64, seed=1)
    with torch.no_grad():
        (logits,) = network.eval()(torch.from_numpy(val.pixels))
    kept = nn.functional.cross_entropy(logits.double(), torch.from_numpy(val.targets)).item()

    assert min(losses) < (losses[0] if lr < 1 else losses[-1])
    assert kept == pytest.approx(min(losses))


def test_the_weights_are_a_mean_with_those_before_training(tmp_path: Path) -> None:
    """Also where an epoch before was averaged: training itself goes on from its own weights."""
    _, plain = run(changed(epochs=2), tmp_path / "plain.pt")
    _, mixed = run(changed(epochs=2, average=0.25), tmp_path / "mixed.pt")
    first, trained = Small().state_dict(), plain.state_dict()

    assert not torch.allclose(first["last.weight"], trained["last.weight"])
    for name, value in mixed.state_dict().items():
        expected = 0.25 * first[name] + 0.75 * trained[name]
        assert torch.allclose(value, expected if value.is_floating_point() else trained[name])


class Toy(nn.Module):
    """Features and texture, as of a backbone with batch norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.last = nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        colours = pixels.float().mean((1, 2)) / 255
        return self.last(self.norm(self.first(colours))), colours


def test_a_probe_that_is_trained_further_keeps_its_head_and_its_norms(tmp_path: Path) -> None:
    """And their statistics, to the bit, also where three shards are averaged; the rest learns."""
    head = np.random.default_rng(0).normal(size=(4, 2))
    network = starting.Probed(Toy(), head, np.zeros(2))  # type: ignore[arg-type]
    network.features.first.requires_grad_(False)  # as `train.finetune.frozen` does
    before = {name: value.clone() for name, value in network.state_dict().items()}
    finetune.finetune(
        network, toys(96), toys(32, seed=1), changed(batch_size=48), 0,
        checkpoint=tmp_path / "c.pt", threads=2, log=lambda _: None,
    )  # fmt: skip
    after = network.state_dict()

    assert {name for name in before if not torch.equal(before[name], after[name])} == {
        "features.last.weight"
    }


def test_a_checkpoint_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two equal runs write under names of their own; one that fails leaves nothing."""

    def full(_state: object, part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        run(P, tmp_path / "c.pt")

    assert not list(tmp_path.iterdir())


@pytest.fixture
def prepared(toy_set: Path) -> manifest.Prepared:
    prepare()
    return manifest.load()


def test_all_that_decides_a_run_is_in_the_name_of_its_checkpoint(
    prepared: manifest.Prepared, set_params: SetParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run would go on from the state of another."""

    def name(
        content: str = "none", ready: manifest.Prepared = prepared, device: Device = CPU
    ) -> str:
        weights = Weights("none", content)
        return finetune.checkpoint(params.load().train, weights, ready, device).name

    names = [name(), name(content="another"), name(device=Device(dtype=torch.bfloat16))]
    for values in (
        {"arch": "resnet18"},
        {"seed": 7},
        *(
            {"finetune": {key: 0.25}}
            for key in ("lr", "weight_decay", "label_smoothing", "augment", "frozen", "average")
        ),
        *({"finetune": {key: 48}} for key in ("epochs", "patience", "batch_size")),
    ):
        set_params(train=values)
        names.append(name())
    fewer = manifest.Prepared(prepared.classes, prepared.preprocessing, prepared.rows[1:])
    names.append(name(ready=fewer))
    for library in finetune.LIBRARIES:
        others = {**dict.fromkeys(finetune.LIBRARIES, "1"), library: "0"}
        monkeypatch.setattr("meadow.training.finetune.version", others.__getitem__)
        names.append(name())

    assert len(set(names)) == len(names)


def test_what_decides_nothing_is_not_in_the_name(
    prepared: manifest.Prepared, set_params: SetParams
) -> None:
    """Neither the served precision nor another method's parameters train anything else."""
    before = finetune.checkpoint(params.load().train, Weights("none", "none"), prepared)
    set_params(train={"precision": "int8", "coverage": 0.9, "probe": {"l2": 0.5}})

    assert finetune.checkpoint(params.load().train, Weights("none", "none"), prepared) == before
