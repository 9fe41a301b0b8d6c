"""A network on several threads, processes or GPUs, with results that do not depend on their number.

A batch is cut into shards of at most 16 photos; where batch norm and dropout do not look at the
shard that a photo is in, a small batch has four shards all the same. Each shard is computed on one
thread from the same weights; gradients and batch-norm statistics are added up in a binary tree over
the shards. The number of threads and processes decides only how many shards are under way at once.

On a GPU one thread computes all shards of its process at once, or as many photos as memory holds;
where shards matter it computes them one by one, too.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import pairwise
from queue import SimpleQueue
from typing import TypeVar

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from meadow.errors import MeadowError
from meadow.training.device import CPU, Device, is_out_of_memory
from meadow.training.group import Group, tree_sum

SHARD = 16  # photos
FEW = 4  # shards of a small batch, for as many cores; of 8 photos or less each is a little slower
LARGEST = 512  # photos that a GPU computes at once, if its memory holds them
R = TypeVar("R")
S = TypeVar("S")


class DataParallel:
    """A network and its replicas, one per thread, that share its parameters but not its buffers.

    Args:
        network: what is trained, in place; it lies on the device.
        threads: how many shards are computed at the same time; on a GPU it is one.
        device: what computes.
        group: the processes that share the shards; each has a network of the same weights.

    Attributes:
        by_shards: whether the shard that a photo is in matters to what is learned from it.
        part: photos that are computed at once where it does not.

    """

    def __init__(
        self,
        network: nn.Module,
        threads: int,
        device: Device = CPU,
        group: Group | None = None,
    ) -> None:
        # PyTorch's own threads would cut sums differently for each number of threads.
        torch.set_num_threads(1)
        # or all is written twice; a property that type checkers do not see
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        # On a GPU PyTorch warns of the few operations for which it has none.
        torch.use_deterministic_algorithms(True, warn_only=device.gpu)
        threads = 1 if device.gpu else threads
        self.device = device
        self.group = group or Group()
        self.part = LARGEST if device.gpu else SHARD
        self.network = network
        self.pool = ThreadPoolExecutor(threads)
        self.idle: SimpleQueue[nn.Module] = SimpleQueue()
        replicas = [_replica(network) for _ in range(threads)]
        self.by_shards = _looks_at_shards(replicas[0].train())
        for replica in replicas:
            self.idle.put(replica)

    def share(self, size: int) -> slice:
        """Return which photos of a batch `backward` asks this process for."""
        return _span(self._leaves(size))

    def backward(self, size: int, loss: Callable[[nn.Module, slice], Tensor], seed: int) -> Tensor:
        """Compute a batch: gradients and batch-norm statistics go to the network.

        Args:
            size: photos in the batch.
            loss: gives the summed loss of a shard of the batch, by a replica.
            seed: of dropout and stochastic depth.

        Returns:
            The mean loss of the batch, on the device.

        Raises:
            MeadowError: the device's memory ends.

        """
        before = [buffer.clone() for buffer in self.network.buffers()]

        def shard(part: slice) -> list[Tensor]:
            with self._borrowed(before) as replica:
                for i, module in enumerate(replica.modules()):
                    if isinstance(module, Drop):
                        module.generator.manual_seed(hash((seed, part.start, i)))
                with self.device.autocast():
                    total = loss(replica.train(), part) / size
                gradients = torch.autograd.grad(total, trained(replica), materialize_grads=True)
                # by their changes: the mean of equal values can differ from them in its last bit
                changes = [
                    # of the batches that batch norm has seen the first shard counts one
                    new - old if new.is_floating_point() else (new - old).float() * (not part.start)
                    for new, old in zip(replica.buffers(), before, strict=True)
                ]
                return [total.detach(), *gradients, *changes]

        weights = trained(self.network)
        if leaves := self._leaves(size):
            sums = self._computed(shard, leaves, self.by_shards, tree_sum)
        else:
            nothing = torch.zeros((), device=self.device.kind)
            sums = [nothing, *map(torch.zeros_like, [*weights, *before])]
        count = len(self._shards(size))
        total, *sums = self.group.summed(sums, count)
        for parameter, gradient in zip(weights, sums, strict=False):
            parameter.grad = gradient
        for buffer, change in zip(self.network.buffers(), sums[len(weights) :], strict=True):
            buffer += change / count if buffer.is_floating_point() else change.to(buffer)
        return total

    @torch.no_grad()
    def outputs(self, size: int, run: Callable[[nn.Module, slice], Tensor]) -> Tensor:
        """Compute `size` photos in evaluation mode; `run` gives the outputs of a part, (n, k).

        Raises:
            MeadowError: the device's memory ends.

        """
        buffers = list(self.network.buffers())

        def shard(part: slice) -> Tensor:
            # these are settings of each thread
            with self._borrowed(buffers) as replica, torch.no_grad(), self.device.autocast():
                return run(replica.eval(), part).float()

        shards = _shards(size, SHARD)
        shares = self.group.shares(len(shards))
        mine = shares[self.group.rank] or range(1)  # if only to know the shape
        rows = self._computed(
            shard, shards[mine.start : mine.stop], False, lambda parts, _: torch.cat(list(parts))
        )
        spans = [_span(shards[share.start : share.stop]) for share in shares]
        return self.group.concatenated(rows, [span.stop - span.start for span in spans])

    def _shards(self, size: int) -> list[slice]:
        """Return the shards of a batch."""
        return _shards(size, SHARD if self.by_shards else min(SHARD, -(-size // FEW)))

    def _leaves(self, size: int) -> list[slice]:
        """Return the shards of a batch that this process adds up."""
        shards = self._shards(size)
        return [shards[i] for i in self.group.leaves(len(shards))]

    def _computed(
        self,
        compute: Callable[[slice], R],
        shards: Sequence[slice],
        by_shards: bool,
        join: Callable[[Iterator[R], int], S],
    ) -> S:
        """Compute shards part by part, and join the results as they come.

        Parts are halved, and stay so, when memory ends.
        """
        while True:
            parts = self._cut(shards, by_shards)
            futures = deque(self.pool.submit(compute, part) for part in parts)
            try:
                return join((futures.popleft().result() for _ in parts), len(parts))
            except Exception as error:
                wait(futures)  # so that no thread works on what nobody waits for
                if not is_out_of_memory(error):
                    raise
                most = SHARD if by_shards else max(part.stop - part.start for part in parts)
                if by_shards or most == 1:
                    raise MeadowError(
                        f"the memory of {self.device.kind} ends at {most} photos of this network."
                        " Take a smaller one (train.arch), smaller photos (prepare.size), or"
                        " train.device: cpu."
                    ) from None
            self.part = -(-most // 2)

    def _cut(self, shards: Sequence[slice], by_shards: bool) -> Sequence[slice]:
        """Return what is computed at once: each shard, or more or less where shards matter not."""
        if by_shards or self.part == SHARD:
            return shards
        span = _span(shards)
        parts = _shards(span.stop - span.start, self.part)
        return [slice(span.start + part.start, span.start + part.stop) for part in parts]

    @contextmanager
    def _borrowed(self, buffers: Sequence[Tensor]) -> Iterator[nn.Module]:
        """Lend an idle replica, with these values of its buffers."""
        replica = self.idle.get()
        try:
            for buffer, value in zip(replica.buffers(), buffers, strict=True):
                buffer.copy_(value)
            yield replica
        finally:
            self.idle.put(replica)


class Drop(nn.Module):
    """Dropout or stochastic depth with a generator of its own.

    PyTorch's draw from one generator for all threads, in whatever order they come.
    """

    def __init__(self, p: float, whole_rows: bool) -> None:
        super().__init__()
        self.p = p
        self.whole_rows = whole_rows
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        """Zero elements, or whole rows, with probability p; scale up the others."""
        if not self.training or self.p == 0:
            return x
        shape = [len(x)] + [1] * (x.ndim - 1) if self.whole_rows else list(x.shape)
        keep = torch.rand(shape, generator=self.generator) >= self.p  # the same for each device
        return x * keep.to(x.device) / (1 - self.p)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _replica(network: nn.Module) -> nn.Module:
    replica = copy.deepcopy(network)
    for parameter, shared in zip(replica.parameters(), network.parameters(), strict=True):
        parameter.data = shared.data
    for name, module in list(replica.named_modules()):
        if isinstance(module, nn.Dropout):
            replica.set_submodule(name, Drop(module.p, whole_rows=False))
        elif isinstance(module, StochasticDepth):
            replica.set_submodule(name, Drop(module.p, whole_rows=module.mode == "row"))
        elif isinstance(module, DropPath):
            replica.set_submodule(name, Drop(module.drop_prob, whole_rows=True))
    return replica


def _looks_at_shards(network: nn.Module) -> bool:
    """Whether what a replica learns from a photo depends on the shard that the photo is in."""
    return any(
        module.training
        and (isinstance(module, _BatchNorm) or (isinstance(module, Drop) and module.p > 0))
        for module in network.modules()
    )


def _shards(size: int, most: int) -> list[slice]:
    """Cut a batch into equal shards of at most so many photos."""
    count = -(-size // most)
    edges = [size * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _span(shards: Sequence[slice]) -> slice:
    """Return the photos of shards that lie side by side."""
    return slice(shards[0].start, shards[-1].stop) if shards else slice(0, 0)
