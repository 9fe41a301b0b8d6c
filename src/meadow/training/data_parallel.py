"""A network on several threads, with results that do not depend on their number.

A batch is cut into shards of at most 16 photos. Each shard is computed on one thread from the same
weights; gradients and batch-norm statistics are added up in the order of the shards. The number
of threads decides only how many shards are under way at the same time.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from queue import SimpleQueue

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

SHARD = 16  # photos


class DataParallel:
    """A network and its replicas, one per thread, that share its parameters but not its buffers.

    Args:
        network: what is trained, in place.
        threads: how many shards are computed at the same time.

    """

    def __init__(self, network: nn.Module, threads: int) -> None:
        # PyTorch's own threads would cut sums differently for each number of threads.
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        self.network = network
        self.pool = ThreadPoolExecutor(threads)
        self.idle: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(threads):
            self.idle.put(_replica(network))

    def backward(self, size: int, loss: Callable[[nn.Module, slice], Tensor], seed: int) -> float:
        """Compute a batch: gradients and batch-norm statistics go to the network.

        Args:
            size: photos in the batch.
            loss: gives the summed loss of a shard of the batch, by a replica.
            seed: of dropout and stochastic depth.

        Returns:
            The mean loss of the batch.

        """
        before = [buffer.clone() for buffer in self.network.buffers()]

        def shard(part: slice) -> tuple[Tensor, list[Tensor], list[Tensor]]:
            with self._borrowed(before) as replica:
                for i, module in enumerate(replica.modules()):
                    if isinstance(module, Drop):
                        module.generator.manual_seed(hash((seed, part.start, i)))
                total = loss(replica.train(), part) / size
                gradients = torch.autograd.grad(total, trained(replica), materialize_grads=True)
                after = [buffer.clone() for buffer in replica.buffers()]
                return total.detach(), list(gradients), after

        losses, gradients, buffers = zip(*self.pool.map(shard, _shards(size)), strict=True)
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
        return float(_sum(losses))

    @torch.no_grad()
    def outputs(self, size: int, run: Callable[[nn.Module, slice], Tensor]) -> Tensor:
        """Compute `size` photos in evaluation mode; `run` gives the outputs of a shard, (n, k)."""
        buffers = list(self.network.buffers())

        def shard(part: slice) -> Tensor:
            with self._borrowed(buffers) as replica, torch.no_grad():  # a setting of each thread
                return run(replica.eval(), part)

        return torch.cat(list(self.pool.map(shard, _shards(size))))

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
        keep = torch.rand(shape, generator=self.generator) >= self.p
        return x * keep / (1 - self.p)


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


def _shards(size: int) -> list[slice]:
    """Cut a batch into equal shards of at most 16 photos."""
    count = -(-size // SHARD)
    edges = [size * i // count for i in range(count + 1)]
    return [slice(a, b) for a, b in pairwise(edges)]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total
