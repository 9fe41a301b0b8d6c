"""The device that PyTorch computes on: the CPU or a GPU, and in which precision.

Both take the same way through the code; what differs between them stands here.
"""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from meadow.errors import MeadowError
from meadow.params import Train

GPUS = ("cuda", "mps")
AHEAD = 2  # batches
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Device:
    """Where tensors lie, and the format of matrix products and convolutions.

    Attributes:
        kind: PyTorch's name of the device.
        dtype: float32, or bfloat16 by autocast: weights, their updates, norms and sums stay
            float32.

    """

    kind: str = "cpu"
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, p: Train) -> Self:
        """Return the device of section `train`.

        Raises:
            MeadowError: it is not there.

        """
        there = [kind for kind in GPUS if getattr(torch, kind).is_available()] + ["cpu"]
        kind = there[0] if p.device == "auto" else p.device
        if kind not in there:
            raise MeadowError(
                f"train.device: {kind} is not there; PyTorch {torch.__version__} sees"
                f" {', '.join(there)} here. Set train.device to one of these, or to auto."
            )
        if kind == "cuda":  # read when cuBLAS starts; without it its sums vary
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.fp32_precision = "ieee"  # float32 is not TF32
        low = p.autocast == "bfloat16" or (p.autocast == "auto" and kind != "cpu")
        return cls(kind, torch.bfloat16 if low else torch.float32)

    @property
    def gpu(self) -> bool:
        """Whether it is not the CPU."""
        return self.kind != "cpu"

    @property
    def about(self) -> dict[str, str]:
        """What model.json says of it: nothing of float32 on a CPU, which all machines have."""
        about = {}
        if self.gpu:
            model = torch.cuda.get_device_name() if self.kind == "cuda" else "Apple"
            about["device"] = f"{self.kind} ({model})"
        if self.dtype != torch.float32:
            about["autocast"] = str(self.dtype).removeprefix("torch.")
        return about

    @property
    def key(self) -> str:
        """A name of all that decides the bits of its results, for file names."""
        return re.sub(r"\W+", "-", "-".join([*self.about.values(), f"torch-{torch.__version__}"]))

    @property
    def memory_format(self) -> torch.memory_format:
        """The order of a convolution's tensors: channels last where it is faster."""
        return torch.channels_last if self.gpu else torch.contiguous_format

    def autocast(self) -> torch.autocast:
        """Return the context of the forward pass; it holds for the thread that enters it."""
        return torch.autocast(self.kind, self.dtype, enabled=self.dtype != torch.float32)

    def pinned(self, tensor: Tensor) -> Tensor:
        """Return a tensor of the CPU's memory that can be sent while others are computed."""
        return tensor.pin_memory() if self.kind == "cuda" else tensor

    def sent(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the device; where it is pinned, nobody waits for it."""
        return tensor.to(self.kind, non_blocking=True)


CPU = Device()


def ahead(load: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield `load(item)` of each item, in order, while threads load the next two."""
    loads: deque[Future[R]] = deque()
    with ThreadPoolExecutor(AHEAD) as pool:
        for item in items:
            loads.append(pool.submit(load, item))
            if len(loads) > AHEAD:
                yield loads.popleft().result()
        while loads:
            yield loads.popleft().result()


def is_out_of_memory(error: Exception) -> bool:
    """Whether a GPU has no memory left; what it has cached for later is freed then."""
    if not isinstance(error, RuntimeError) or "out of memory" not in str(error).lower():
        return False
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()
    return True
