import pytest
import torch

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
