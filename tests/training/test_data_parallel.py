import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from devices import DEVICES, ON_DEVICES
from timm.layers.drop import DropPath
from timm.models import create_model
from torch import Tensor, nn
from torchvision.models import efficientnet_b0, mobilenet_v2
from torchvision.ops import StochasticDepth

from meadow.errors import MeadowError
from meadow.training.data_parallel import SHARD, DataParallel, Drop
from meadow.training.device import CPU, Device

PHOTOS = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(40) % 3


def loss(network: nn.Module, part: slice) -> Tensor:
    return F.cross_entropy(network(PHOTOS[part]), TARGETS[part], reduction="sum")


def after_a_step(threads: int, build: type = mobilenet_v2, seed: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(0)
    network = build(num_classes=3)
    DataParallel(network, threads).backward(len(PHOTOS), loss, seed)
    gradients = {f"grad {n}": p.grad for n, p in network.named_parameters()}
    return {**gradients, **dict(network.named_buffers())}


@pytest.mark.parametrize("build", [mobilenet_v2, efficientnet_b0])
def test_the_number_of_threads_changes_no_bit(build: type) -> None:
    """Gradients and batch-norm statistics, with dropout and stochastic depth at work."""
    one, many = after_a_step(1, build), after_a_step(3, build)

    assert all(torch.equal(one[name], many[name]) for name in one)


def test_another_seed_drops_other_units() -> None:
    """Dropout is seeded, not frozen."""
    one, other = after_a_step(2), after_a_step(2, seed=6)

    assert not torch.equal(one["grad classifier.1.weight"], other["grad classifier.1.weight"])


def test_shards_add_up_to_the_batch() -> None:
    """Without batch norm and dropout the gradient is that of the whole batch at once."""
    layer = nn.Linear(3 * 32 * 32, 3)
    network = nn.Sequential(nn.Flatten(), layer)
    mean = DataParallel(network, 2).backward(len(PHOTOS), loss, 0).item()
    assert layer.weight.grad is not None
    by_shards = layer.weight.grad.clone()
    network.zero_grad()
    whole = F.cross_entropy(network(PHOTOS), TARGETS)
    torch.autograd.backward(whole)

    assert mean == pytest.approx(whole.item(), rel=1e-5)
    assert torch.allclose(by_shards, layer.weight.grad, atol=1e-6)


def test_batch_norm_learns_the_mean_of_its_shards() -> None:
    """Its running statistics are moved once a batch, by the mean over equal shards."""
    norm = nn.BatchNorm2d(3, momentum=1.0)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(3072, 3))
    DataParallel(network, 2).backward(len(PHOTOS), loss, 0)
    shards = [PHOTOS[:13], PHOTOS[13:26], PHOTOS[26:]]
    means = torch.stack([shard.mean((0, 2, 3)) for shard in shards])

    assert norm.running_mean is not None
    assert torch.allclose(norm.running_mean, means.mean(0), atol=1e-6)
    assert norm.num_batches_tracked == 1


def test_outputs_are_those_of_the_network_in_evaluation_mode() -> None:
    """In the order of the photos, with the statistics that were learned."""
    torch.manual_seed(0)
    network = mobilenet_v2(num_classes=3)
    replicas = DataParallel(network, 3)
    replicas.backward(len(PHOTOS), loss, 0)
    outputs = replicas.outputs(len(PHOTOS), lambda net, part: net(PHOTOS[part]))
    with torch.no_grad():
        expected = network.eval()(PHOTOS)

    assert torch.allclose(outputs, expected, atol=1e-5)


def test_a_shard_that_fails_gives_its_replica_back() -> None:
    """Else the next batch would wait for ever."""
    replicas = DataParallel(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), 1)

    def fail(_network: nn.Module, _part: slice) -> Tensor:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        replicas.backward(len(PHOTOS), fail, 0)
    assert replicas.idle.qsize() == 1


@pytest.mark.parametrize("rows", [False, True])
def test_drop_keeps_the_mean(rows: bool) -> None:
    """What is kept is scaled up, as PyTorch's own dropout does."""
    drop = Drop(0.25, whole_rows=rows).train()
    ones = torch.ones(4000, 8)

    kept = drop(ones)

    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert (kept == 0).double().mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(drop.eval()(ones), ones)
    if rows:
        assert all(len(set(row.tolist())) == 1 for row in kept[:50])


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_replicas_replace_every_source_of_chance(library: str) -> None:
    """A dropout left in a replica would draw from the generator that all threads share."""
    network = (
        efficientnet_b0(num_classes=3)
        if library == "torchvision"
        else create_model("convnext_atto", drop_path_rate=0.1)
    )
    replica = DataParallel(network, 1).idle.get()
    chance = nn.Dropout | StochasticDepth | DropPath

    assert not [m for m in replica.modules() if isinstance(m, chance)]
    assert [m for m in replica.modules() if isinstance(m, Drop) and m.p > 0]


def on(device: Device, build: type, part: int | None = None) -> dict[str, Tensor]:
    """Return gradients and statistics after a step on a device, and outputs, all on the CPU."""
    torch.manual_seed(0)
    network = build(num_classes=3).to(device.kind).to(memory_format=device.memory_format)
    replicas = DataParallel(network, 1, device)
    replicas.part = part or replicas.part

    def mean(net: nn.Module, rows: slice) -> Tensor:
        logits = net(PHOTOS[rows].to(device.kind)).float()
        return F.cross_entropy(logits, TARGETS[rows].to(device.kind), reduction="sum")

    replicas.backward(len(PHOTOS), mean, 5)
    outputs = replicas.outputs(len(PHOTOS), lambda net, rows: net(PHOTOS[rows].to(device.kind)))
    gradients = {f"grad {n}": p.grad for n, p in network.named_parameters()}
    tensors = {**gradients, **dict(network.named_buffers()), "outputs": outputs}
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def difference(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Return the largest difference of a tensor's norm, as a share of it."""
    pairs = [(value.double(), others[name].double()) for name, value in some.items()]
    scale = max(value.norm() for value, _ in pairs)
    return max(float((a - b).norm() / (b.norm() + 1e-3 * scale)) for a, b in pairs)


class Plain(nn.Sequential):
    """A network in which the shard of a photo does not matter."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, num_classes),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("device", "build"),
    [
        (device, build)
        for device in DEVICES
        for build in (Plain, efficientnet_b0)
        if device.dtype == torch.float32 or build is Plain
    ],
)
def test_every_device_computes_what_the_cpu_does(device: Device, build: type) -> None:
    """Within 0.1 % in float32 and 5 % in bfloat16; dropout drops the same units.

    In bfloat16 a random network of many layers, with batch norm over 13 small photos, is chaotic.
    """
    assert difference(on(device, build), on(CPU, build)) < (
        1e-3 if device.dtype == torch.float32 else 0.05
    )


@ON_DEVICES
def test_the_same_device_computes_the_same_bytes(device: Device) -> None:
    """Twice, with dropout and batch norm."""
    once, again = on(device, efficientnet_b0), on(device, efficientnet_b0)

    assert all(torch.equal(once[name], again[name]) for name in once)


def fails_beyond(photos: int) -> tuple[type, list[int]]:
    """Return a network whose memory ends beyond so many photos, and the sizes that it is given."""
    sizes: list[int] = []

    class Limited(Plain):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(len(x))
            if len(x) > photos:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return nn.Sequential.forward(self, x)  # type: ignore[no-any-return, no-untyped-call]

    return Limited, sizes


def test_where_memory_ends_smaller_parts_are_computed() -> None:
    """The batch of the optimizer stays: its gradient is the same. Parts stay small from then on."""
    expected = on(CPU, Plain, part=40)
    limited, sizes = fails_beyond(15)

    assert difference(on(CPU, limited, part=40), expected) < 1e-5
    assert sizes == [40, 20, 20, *[10] * 4, *[10] * 4]  # the last are outputs


def test_memory_that_does_not_hold_a_photo_is_an_error_with_the_next_step() -> None:
    """As is one that does not hold a shard, where batch norm looks at the shard."""
    with pytest.raises(MeadowError, match=r"ends at 1 photos of this network.*train\.arch"):
        on(CPU, fails_beyond(0)[0])

    class Normed(fails_beyond(12)[0]):  # type: ignore[misc]
        def __init__(self, num_classes: int) -> None:
            super().__init__(num_classes)
            self.insert(1, nn.BatchNorm2d(8))

    with pytest.raises(MeadowError, match=f"ends at {SHARD} photos"):
        on(CPU, Normed)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    """They would be repeated for nothing."""

    class Broken(Plain):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError(f"no kernel for {len(x)} photos")

    with pytest.raises(RuntimeError, match="no kernel for 10 photos"):
        on(CPU, Broken)
