import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from meadow.errors import MeadowError
from meadow.training.data_parallel import DataParallel
from meadow.training.group import Group, _combined, _subtrees, tree_sum

NUMBERS = torch.randn(24, 50, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 8, 12, 24])
@pytest.mark.parametrize("processes", [1, 2, 3, 4, 5, 8])
def test_the_number_of_processes_changes_no_bit_of_a_sum(count: int, processes: int) -> None:
    """Each sums a subtree of its own; what has none adds nothing, not even a zero."""
    leaves = [[row] for row in NUMBERS[:count]]
    (expected,) = tree_sum(iter(leaves), count)
    shares = _subtrees(range(count), processes)
    sums = torch.full((processes, 50), torch.nan)
    for row, share in zip(sums, shares, strict=True):
        if share:
            row[:] = tree_sum(iter(leaves[share.start : share.stop]), len(share))[0]

    assert [leaf for share in shares for leaf in share] == list(range(count))
    assert torch.equal(_combined(sums, count), expected)


def test_sums_of_three_are_from_left_to_right() -> None:
    """So a batch of 48 photos has the bytes that it had before the tree."""
    a, b, c = NUMBERS[:3]

    assert torch.equal(tree_sum(iter([[a], [b], [c]]), 3)[0], a + b + c)


@pytest.mark.parametrize(("count", "processes"), [(4, 2), (8, 4), (12, 4), (6, 2)])
def test_equal_shares_where_they_can_be(count: int, processes: int) -> None:
    assert {len(share) for share in _subtrees(range(count), processes)} == {count // processes}


def test_a_sum_leaves_its_parts_alone() -> None:
    """The gradients of two parameters may be one tensor."""
    one = torch.ones(2)
    shared = [[one, one], [one, one]]

    assert [part.tolist() for part in tree_sum(iter(shared), 2)] == [[2, 2], [2, 2]]
    assert one.tolist() == [1, 1]


def test_without_others_there_is_nothing_to_exchange() -> None:
    """No process group is needed for one process."""
    group, numbers = Group(), [NUMBERS[0]]
    group.agree("anything")
    group.equal(numbers)

    assert (group.size, group.writes) == (1, True)
    assert group.summed(numbers, 3)[0] is numbers[0]
    assert group.newest("state", 4) == "state"


def alone() -> Group:
    """Return the group of a process that is alone, wherever it is."""
    group = Group()
    group.rank, group.size = 0, 1
    return group


def learned(group: Group, photos: int) -> list[torch.Tensor]:
    """Return gradients, buffers, loss and outputs of a step with batch norm and dropout."""
    torch.manual_seed(0)
    pixels = torch.randn(photos, 6)
    network = nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.3), nn.Linear(5, 3, bias=False)
    )
    replicas = DataParallel(network, 2, group=group)
    share = replicas.share(photos)

    def loss(net: nn.Module, part: slice) -> torch.Tensor:
        assert share.start <= part.start < part.stop <= share.stop
        total: torch.Tensor = net(pixels[part]).square().sum()
        return total

    mean = replicas.backward(photos, loss, 5)
    outputs = replicas.outputs(photos, lambda net, part: net(pixels[part]))
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) == 5
    return [mean, outputs, *gradients, *network.buffers()]


def together(rank: int, folder: str) -> None:
    """Run in a process of two; what is wrong is an error there, and so in the test."""
    os.environ["LOCAL_RANK"] = str(rank)
    os.environ["GLOO_SOCKET_IFNAME"] = next(n for _, n in socket.if_nameindex() if n[:2] == "lo")
    store = dist.FileStore(f"{folder}/store", 2)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    group = Group()
    leaves = [[row[:21].view(3, 7), row[21:].bfloat16().float()] for row in NUMBERS[:5]]
    expected = tree_sum(iter(leaves), 5)
    mine = [leaves[i] for i in group.leaves(5)]
    sums = group.summed(tree_sum(iter(mine), len(mine)), 5)
    assert all(torch.equal(a, b) for a, b in zip(sums, expected, strict=True))

    one = [torch.zeros(3, 7), torch.zeros(29)] if rank else leaves[0]
    sums = group.summed(one, 1)  # the second has no leaf
    assert all(torch.equal(a, b) for a, b in zip(sums, leaves[0], strict=True))

    rows = NUMBERS[2:3] if rank else NUMBERS[:2]
    assert torch.equal(group.concatenated(rows, [2, 1]), NUMBERS[:3])
    assert torch.equal(group.concatenated(NUMBERS[:2], [2, 0]), NUMBERS[:2])
    assert group.newest({"weights": NUMBERS[rank]}, epochs=rank)["weights"].equal(NUMBERS[1])
    assert group.newest(rank, epochs=3) == rank
    tensors = [NUMBERS[rank].clone(), torch.tensor(rank)]
    group.equal(tensors)
    assert tensors[0].equal(NUMBERS[0])
    assert tensors[1] == 0
    assert group.writes == (rank == 0)
    group.agree("the same")
    with pytest.raises(MeadowError, match="train different things"):
        group.agree(f"run {rank}")
    for photos in (40, 10):  # three shards, or one: then the second process has none
        assert all(map(torch.equal, learned(group, photos), learned(alone(), photos)))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_what_one_has(tmp_path: Path) -> None:
    """Sums to the bit, rows in order, the state that is farthest, the first one's values."""
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in (0, 1)]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for run in runs:
        _, said = run.communicate(timeout=100)
        assert run.returncode == 0, said


if __name__ == "__main__":
    together(int(sys.argv[1]), sys.argv[2])
