"""The processes that train one network, and what they tell each other: by PyTorch's `distributed`.

Sums are those of one process, to the bit. A step's shards are the leaves of a binary tree, which
depends on their number alone; each process has one subtree, sums it, and hands on only the sum.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from meadow.errors import MeadowError

T = TypeVar("T")


class Group:
    """A process among those of a run; without a process group it is alone.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        writes: whether it is the one of its machine that writes files and shows progress.

    """

    def __init__(self) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        self.writes = not together or os.environ["LOCAL_RANK"] == "0"

    def leaves(self, count: int) -> range:
        """Return which leaves of a tree of `count` this process computes; there may be none."""
        return _subtrees(range(count), self.size)[self.rank]

    def shares(self, count: int) -> list[range]:
        """Return which of `count` equal things each process computes where none are summed."""
        edges = [count * rank // self.size for rank in range(self.size + 1)]
        return [range(a, b) for a, b in pairwise(edges)]

    def summed(self, parts: Sequence[Tensor], count: int) -> list[Tensor]:
        """Add up the sums of all subtrees of a tree of `count` leaves.

        Each process sums a part of the numbers, of all processes, and hands its part on: twice
        the numbers travel, as in a ring, but the order of the sums is the tree's.

        Args:
            parts: the sum of this process's subtree; zeros where it has none. All of one dtype.
            count: leaves of the whole tree.

        """
        if self.size == 1:
            return list(parts)
        sizes = [part.numel() for part in parts]
        length = -(-sum(sizes) // self.size)
        flat = parts[0].new_empty(length * self.size)
        torch.cat([part.flatten() for part in parts], out=flat[: sum(sizes)])
        received = torch.empty_like(flat)
        dist.all_to_all_single(received, flat)
        dist.all_gather_single(flat, _combined(received.view(self.size, length), count))
        whole = torch.split(flat[: sum(sizes)], sizes)
        return [sums.view_as(part) for sums, part in zip(whole, parts, strict=True)]

    def concatenated(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Concatenate the rows of all processes, of which each has so many."""
        if self.size == 1:
            return rows
        padded = rows.new_zeros(max(counts), *rows.shape[1:])
        padded[: counts[self.rank]] = rows[: counts[self.rank]]
        received = padded.new_empty(self.size, *padded.shape)
        dist.all_gather_single(received.flatten(0, 1), padded)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])

    def agree(self, about: str) -> None:
        """Check that all processes are about the same thing.

        Raises:
            MeadowError: they are not; all processes raise it.

        """
        for other in self._objects(about):
            if other != about:
                raise MeadowError(
                    "the machines of runtime.rendezvous train different things: their photos,"
                    " parameters of train, code or packages differ. Give each the same commit"
                    " (`git status`, `dvc repro prepare`, `make install`), then run it again."
                )

    def newest(self, state: T, epochs: int) -> T:
        """Return the state of a process that has most epochs behind it."""
        ages = self._objects(epochs)
        if min(ages) == max(ages):
            return state
        box = [state]
        dist.broadcast_object_list(box, ages.index(max(ages)))
        return box[0]

    def equal(self, tensors: Sequence[Tensor]) -> None:
        """Give all processes the first one's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def _objects(self, mine: T) -> list[T]:
        objects = [mine] * self.size
        if self.size > 1:
            dist.all_gather_object(objects, mine)
        return objects


def tree_sum(leaves: Iterator[list[Tensor]], count: int) -> list[Tensor]:
    """Add up `count` leaves as they come; about log2(count) sums are held at a time."""
    if count == 1:
        return next(leaves)
    first = _first(count)
    left, right = tree_sum(leaves, first), tree_sum(leaves, count - first)
    # not in place: gradients of two parameters may be one tensor
    return [a + b for a, b in zip(left, right, strict=True)]


def _first(count: int) -> int:
    """Return how many leaves are on the left below the root."""
    return -(-count // 2)


def _left(count: int, processes: int) -> int:
    """Return how many of the processes share the leaves on the left."""
    return min(max(round(processes * _first(count) / count), 1), processes - 1)


def _subtrees(leaves: range, processes: int) -> list[range]:
    """Return a subtree for each process; a process that is one too many has none."""
    if processes == 1 or len(leaves) == 1:
        return [leaves] + [range(0)] * (processes - 1)
    first, left = _first(len(leaves)), _left(len(leaves), processes)
    return _subtrees(leaves[:first], left) + _subtrees(leaves[first:], processes - left)


def _combined(sums: Tensor, count: int) -> Tensor:
    """Add up what `_subtrees` has dealt out, in place: sums of `count` leaves, a row a process."""
    if len(sums) == 1 or count == 1:
        return sums[0]
    first, left = _first(count), _left(count, len(sums))
    return _combined(sums[:left], first).add_(_combined(sums[left:], count - first))
