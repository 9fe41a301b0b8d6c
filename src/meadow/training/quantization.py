"""A network in 8-bit integers: half the time of a photo and a quarter of the bytes.

Activations get one scale a tensor, from the range that some pictures show; weights one a channel.
On the 400 photos a head on these features is as good as one on those in float32
(docs/experiments.md). It takes a processor that multiplies 8-bit integers without overflow (VNNI:
x86 since 2019, ARM since 2018); where there is none, ONNX Runtime may cut sums off.
"""

import tempfile
from collections.abc import Iterable, Sequence
from math import sqrt
from pathlib import Path
from random import Random

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image, ImageDraw

from meadow.pipeline.manifest import Photos
from meadow.training import onnx_graph

SAMPLE = 32  # pictures whose activations set the scales; 16 and 64 give the same accuracy
DISCS = 1000  # a picture
Pixels = NDArray[np.uint8]
KINDS = [
    "Conv", "Gemm", "MatMul", "Add", "Mul", "Relu", "Clip", "MaxPool", "Concat",
    "GlobalAveragePool", "AveragePool", "Sigmoid", "HardSigmoid",
]  # fmt: skip
PIXELS = "pixels.centred"


def sample(photos: Photos) -> Pixels:
    """Return the `SAMPLE` photos with the lowest hashes, for a network trained on these."""
    chosen = sorted(range(len(photos.rows)), key=lambda i: photos.rows[i].pixels_sha256)[:SAMPLE]
    return photos.pixels[chosen]


def leaves(size: int) -> Pixels:
    """Draw `SAMPLE` pictures of discs on discs, (`SAMPLE`, size, size, 3), for a frozen network.

    Radii r as frequent as 1/r^3 give edges and contrasts of all sizes, as photos have them (Lee,
    Mumford and Huang 2001, "dead leaves"). So the scales are as good as those of a set's own photos
    (docs/experiments.md), and the network stays the same when photos come. Nothing here is rounded
    differently by another machine.
    """
    random, pictures = Random(0), []
    for _ in range(SAMPLE):
        base, spread = [random.randrange(256) for _ in "RGB"], random.randrange(16, 128)
        least = size / 2 ** random.randrange(4, 9)
        picture = Image.new("RGB", (size, size), tuple(base))
        draw = ImageDraw.Draw(picture)
        for _ in range(DISCS):
            radius = int(least / sqrt(1 - random.random()))
            x, y, light = *random.choices(range(size), k=2), random.randrange(-spread, spread)
            tints = random.choices(range(-spread // 2, spread // 2), k=3)
            colour = [min(max(b + light + t, 0), 255) for b, t in zip(base, tints, strict=True)]
            box = x - radius, y - radius, x + radius, y + radius
            draw.ellipse(box, fill=tuple(colour))
        pictures.append(np.asarray(picture))
    return np.stack(pictures)


def int8(network: ModelProto, pixels: Pixels) -> ModelProto:
    """Quantise a network that takes `pixels`; its inputs and outputs stay as they are.

    Texture stays in float32: it is a logarithm, and small deviations would become none.

    Args:
        network: float32, as `onnx_export.exported` gives it.
        pixels: of the pictures that set the scales, (n, size, size, 3).

    """
    scales = {}
    if grey := normalised_by_weights(network.graph):
        as_they_are = {"scale": np.array(1, np.float32), "zero_point": np.array(grey, np.uint8)}
        scales[PIXELS] = [as_they_are]
    large = onnx_graph.is_large(network)
    with tempfile.TemporaryDirectory() as folder:
        source, simplified, named, target = (Path(folder, f"{i}.onnx") for i in range(4))
        onnx_graph.save(network, source)
        quant_pre_process(
            source,
            simplified,
            skip_symbolic_shape=True,
            save_as_external_data=large,
            all_tensors_to_one_file=large,
        )
        model = onnx.load(simplified)
        excluded = _only_for(model.graph, "texture") + _directions(model.graph)
        onnx_graph.save(model, named)
        quantize_static(
            named,
            target,
            _Reader(pixels),
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=KINDS,
            nodes_to_exclude=excluded,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True, "TensorQuantOverrides": scales},
        )
        model = onnx.load(target)
    read_pixels_as_they_are(model.graph)
    return model


class _Reader(CalibrationDataReader):
    def __init__(self, pixels: Iterable[NDArray[np.uint8]]) -> None:
        self.left = iter(pixels)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        pixels = next(self.left, None)
        return None if pixels is None else {"pixels": pixels[None]}


def normalised_by_weights(graph: GraphProto) -> int | None:
    """Move mean and standard deviation into the first convolution, if that is what comes next.

    It then sees pixels minus a grey, which are 8-bit integers as they are: quantising them anew
    takes a third of the network's time. The result differs at the photo's edge alone, which is
    padded with this grey and not with the mean of each channel.

    Returns:
        The grey, the average of the channels' means; None where nothing was moved.

    """
    start = ("Transpose", "Cast", "Sub", "Div")
    nodes = _chain(graph, "pixels", (*start, "Conv")) or _chain(
        graph, "pixels", (*start, "Pad", "Conv")
    )
    if not nodes:
        return None
    _, _, subtract, divide, *pads, convolve = nodes
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    tensors |= {n.output[0]: n.attribute[0].t for n in graph.node if n.op_type == "Constant"}
    for node in graph.node:  # of equal tensors, such as biases without weights, one is kept
        if node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    mean, std, weight, *bias = (
        numpy_helper.to_array(tensors[name]).astype(np.float64)
        for name in (subtract.input[1], divide.input[1], *convolve.input[1:])
    )
    weight /= std
    grey = round(float(mean.mean()))
    values = {
        "pixels.grey": np.array(grey),
        "pixels.weight": weight,
        "pixels.bias": sum(bias) - (weight * (mean - grey)).sum((1, 2, 3)),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()
    )
    graph.node.remove(divide)
    subtract.input[1], subtract.output[0] = "pixels.grey", PIXELS
    for pad in pads:
        pad.input[0] = PIXELS
    seen = pads[0].output[0] if pads else PIXELS
    del convolve.input[:]
    convolve.input.extend([seen, "pixels.weight", "pixels.bias"])
    return grey


def read_pixels_as_they_are(graph: GraphProto) -> None:
    """Drop what turns pixels into floats, subtracts grey and quantises the result: the pixels."""
    nodes = _chain(graph, "pixels", ("Transpose", "Cast", "Sub", "QuantizeLinear"))
    if nodes and nodes[2].output[0] == PIXELS:
        transpose, cast, subtract, quantise = nodes
        transpose.output[0] = quantise.output[0]
        for node in (cast, subtract, quantise):
            graph.node.remove(node)


def _chain(graph: GraphProto, start: str, kinds: Sequence[str]) -> list[NodeProto]:
    """Return the nodes of these kinds that follow on a tensor, each the only user of the last."""
    nodes: list[NodeProto] = []
    for kind in kinds:
        users = [node for node in graph.node if start in node.input]
        if len(users) != 1 or users[0].op_type != kind:
            return []
        nodes += users
        start = users[0].output[0]
    return nodes


def _only_for(graph: GraphProto, output: str) -> list[str]:
    """Name the nodes by what they make; return those that no other output depends on."""
    maker = {name: node for node in graph.node for name in node.output}
    wanted = [tensor.name for tensor in graph.output if tensor.name != output]
    needed: set[str] = set()
    while wanted:
        tensor = wanted.pop()
        if tensor in maker and tensor not in needed:
            needed.update(maker[tensor].output)
            wanted += maker[tensor].input
    for node in graph.node:
        node.name = node.output[0]
    return [node.name for node in graph.node if node.name not in needed]


def _directions(graph: GraphProto) -> list[str]:
    """Return the nodes that bring features to length 1: 8 bits would lose the small ones."""
    norms = {node.output[0] for node in graph.node if node.op_type == "ReduceL2"}
    return [
        node.name
        for node in graph.node
        if node.output[0] == "features" or (node.op_type == "Clip" and node.input[0] in norms)
    ]
