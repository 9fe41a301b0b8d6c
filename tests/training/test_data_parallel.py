import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from timm.layers.drop import DropPath
from timm.models import create_model
from torch import Tensor, nn
from torchvision.models import efficientnet_b0, mobilenet_v2
from torchvision.ops import StochasticDepth

from meadow.training.data_parallel import DataParallel, Drop

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
    mean = DataParallel(network, 2).backward(len(PHOTOS), loss, 0)
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
