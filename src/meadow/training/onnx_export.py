"""PyTorch networks as ONNX, and the layers that PyTorch's exporter cannot write as they are."""

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import onnx
import torch
from onnx import ModelProto
from timm.layers import padding
from torch import Tensor, nn

GET_SAME_PADDING = padding.get_same_padding
Calls = dict[nn.Module, tuple[Tensor, Tensor]]


@contextmanager
def watched(modules: Sequence[nn.Module]) -> Iterator[Calls]:
    """Collect what modules take and give while the network runs."""
    calls: Calls = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = (inputs[0], output)

    with ExitStack() as hooks:  # they go, also on an error: the network is trained on, and copied
        for module in modules:
            hooks.callback(module.register_forward_hook(note).remove)
        yield calls


class Pooling(nn.Module):
    """Adaptive average pooling of one input size, as two products with constant matrices.

    ONNX has no word for `nn.AdaptiveAvgPool2d` where its bins are of unequal or less than one
    place: VGG and AlexNet below their usual 224 px.
    """

    def __init__(self, height: int, width: int, to: tuple[int, int]) -> None:
        super().__init__()
        self.rows: Tensor
        self.columns: Tensor
        for name, places, bins in (("rows", height, to[0]), ("columns", width, to[1])):
            share = nn.functional.adaptive_avg_pool1d(torch.eye(places), bins)
            self.register_buffer(name, share, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, c, height, width) to (n, c, *to)."""
        pooled: Tensor = self.rows.T @ (x @ self.columns)
        return pooled


def make_pooling_exportable(network: nn.Module, size: int) -> None:
    """Run the network once at this size; replace the adaptive pooling that needs it.

    Raises:
        RuntimeError, ValueError, AssertionError: it cannot take this size.

    """
    names = {module: name for name, module in network.named_modules()}
    pools = [module for module in names if isinstance(module, nn.AdaptiveAvgPool2d)]
    with torch.no_grad(), watched(pools) as calls:
        network.eval()(torch.zeros(2, size, size, 3))
    for pool, (given, pooled) in calls.items():
        (height, width), (rows, columns) = given.shape[-2:], pooled.shape[-2:]
        if height % rows or width % columns:
            network.set_submodule(names[pool], Pooling(height, width, (rows, columns)))


def _same_padding(length: int | Tensor, kernel: int, stride: int, dilation: int) -> int:
    """Compute timm's padding of one input size: a constant, where timm's own leaves nodes."""
    padded: int = GET_SAME_PADDING(int(length), kernel, stride, dilation)
    return padded


def exported(network: nn.Module, *, size: int, outputs: Sequence[str]) -> ModelProto:
    """Return an ONNX model: `pixels` (n, size, size, 3) uint8 to `outputs` (n, k) float32.

    PyTorch's TorchScript exporter is used: in 0.3 s it makes the same bytes every time, where the
    newer one needs one more package and stores source paths in the model.
    """
    photo = torch.zeros(1, size, size, 3, dtype=torch.uint8)
    axes = {name: {0: "n"} for name in ("pixels", *outputs)}
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        mock.patch.object(padding, "get_same_padding", _same_padding),
    ):
        warnings.simplefilter("ignore")  # tracing warns of branches that depend on the size only
        file = Path(folder, "network.onnx")
        torch.onnx.export(
            network.eval(),
            (photo,),
            str(file),  # a path object would end at 2 GiB
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=list(outputs),
            dynamic_axes=axes,
        )
        return onnx.load(file)
