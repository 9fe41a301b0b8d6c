"""A network on several threads or on a GPU, with results that do not depend on their number.

A batch is cut into shards of at most 16 photos. Each shard is computed on one thread from the same
weights; gradients and batch-norm statistics are added up in the order of the shards. The number
of threads decides only how many shards are under way at the same time.

On a GPU one thread computes the whole batch at once, or as much of it as memory holds; where batch
norm or dropout look at the shard that a photo is in, it computes shard by shard, too.
"""

import copy
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

SHARD = 16  # photos
LARGEST = 4096  # photos that a GPU computes at once, if its memory holds them
R = TypeVar("R")


class DataParallel:
    """A network and its replicas, one per thread, that share its parameters but not its buffers.

    Args:
        network: what is trained, in place; it lies on the device.
        threads: how many shards are computed at the same time; on a GPU it is one.
        device: what computes.

    Attributes:
        by_shards: whether the shard that a photo is in matters to what is learned from it.
        part: photos that are computed at once where it does not.

    """

    def __init__(self, network: nn.Module, threads: int, device: Device = CPU) -> None:
        # PyTorch's own threads would cut sums differently for each number of threads.
        torch.set_num_threads(1)
        # On a GPU PyTorch warns of the few operations for which it has none.
        torch.use_deterministic_algorithms(True, warn_only=device.gpu)
        threads = 1 if device.gpu else threads
        self.device = device
        self.part = LARGEST if device.gpu else SHARD
        self.network = network
        self.pool = ThreadPoolExecutor(threads)
        self.idle: SimpleQueue[nn.Module] = SimpleQueue()
        replicas = [_replica(network) for _ in range(threads)]
        self.by_shards = _looks_at_shards(replicas[0].train())
        for replica in replicas:
            self.idle.put(replica)

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

        def shard(part: slice) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            with self._borrowed(before) as replica:
                for i, module in enumerate(replica.modules()):
                    if isinstance(module, Drop):
                        module.generator.manual_seed(hash((seed, part.start, i)))
                with self.device.autocast():
                    total = loss(replica.train(), part) / size
                gradients = torch.autograd.grad(total, trained(replica), materialize_grads=True)
                after = [buffer.clone() for buffer in replica.buffers()]
                return total.detach(), list(gradients), after

        losses, gradients, buffers = zip(*self._parts(shard, size, self.by_shards), strict=True)
        for parameter, parts in zip(
            trained(self.network), zip(*gradients, strict=True), strict=True
        ):
            parameter.grad = _sum(parts)
        for buffer, values in zip(self.network.buffers(), zip(*buffers, strict=True), strict=True):
            if buffer.is_floating_point():
                # by their changes: the mean of equal values can differ from them in its last bit
                buffer += _sum([value - buffer for value in values]) / len(values)
            else:  # the count of batches that batch norm has seen
                buffer.copy_(values[0])
        return _sum(losses)

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

        return torch.cat(self._parts(shard, size, by_shards=False))

    def _parts(self, compute: Callable[[slice], R], size: int, by_shards: bool) -> list[R]:
        """Compute a batch part by part; parts are halved, and stay so, when memory ends."""
        while True:
            part = SHARD if by_shards else min(self.part, size)
            results = [self.pool.submit(compute, rows) for rows in _shards(size, part)]
            wait(results)
            try:
                return [result.result() for result in results]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if by_shards or part == 1:
                    raise MeadowError(
                        f"the memory of {self.device.kind} ends at {part} photos of this network."
                        " Take a smaller one (train.arch), smaller photos (prepare.size), or"
                        " train.device: cpu."
                    ) from None
            self.part = -(-part // 2)

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


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
