"""The served network as one ONNX graph: pixels in, calibrated probabilities out."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from meadow.inference.onnx_session import external_data
from meadow.training.out_of_distribution import FEATURES_WEIGHT, Neighbours

LARGEST = 1_900_000_000  # bytes in one file; protobuf ends at 2 GiB


def save(model: ModelProto, path: Path) -> None:
    """Write a model, the same bytes for the same model; large tensors beside it if they must be."""
    if is_large(model):
        onnx.save_model(model, path, save_as_external_data=True, location=external_data(path).name)
    else:
        path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)


def is_large(model: ModelProto) -> bool:
    """Whether one file cannot hold a model."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > LARGEST


def with_head(
    backbone: Path, weight: NDArray[np.floating], bias: NDArray[np.floating]
) -> ModelProto:
    """Add a linear head, (d, classes) and (classes,), and softmax to a graph that gives `features`.

    The graph goes on to give them too. Weight and bias are already divided by the temperature.
    """
    model = onnx.load(backbone)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.asarray(weight, np.float32), "head.weight"),
            numpy_helper.from_array(np.asarray(bias, np.float32), "head.bias"),
        ]
    )
    gemm = helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["head.logits"])
    return _finish(model, [gemm], "head.logits", len(bias))


def with_temperature(model: ModelProto, temperature: float, classes: int) -> ModelProto:
    """Add division by the temperature and softmax to a graph that gives `logits`."""
    value = numpy_helper.from_array(np.float32(temperature), "temperature")
    model.graph.initializer.append(value)
    divide = helper.make_node("Div", ["logits", "temperature"], ["calibrated"])
    return _finish(model, [divide], "calibrated", classes)


def with_neighbours(model: ModelProto, neighbours: Neighbours) -> ModelProto:
    """Add the distance to the k-th nearest neighbour, (n,), to a graph of features and texture."""
    reference = np.asarray(neighbours.reference, np.float32)
    constants = {
        "shown": np.float32(FEATURES_WEIGHT),
        "mean": np.asarray(neighbours.mean, np.float32),
        "scale": np.asarray(neighbours.scale, np.float32),
        "minus_twice": np.ascontiguousarray(-2 * reference.T),
        "squares": (reference**2).sum(axis=1),
        "zero": np.float32(0),
        "k": np.array([neighbours.k], np.int64),
        "last": np.array(neighbours.k - 1, np.int64),
    }
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"near.{name}")
        for name, value in constants.items()
    )

    def node(kind: str, inputs: str, outputs: str, **settings: object) -> None:
        public = {"features", "texture", "distance"}
        names = [
            [name if name in public else f"near.{name}" for name in tensors.split()]
            for tensors in (inputs, outputs)
        ]
        model.graph.node.append(helper.make_node(kind, *names, **settings))

    node("LpNormalization", "features", "unit", axis=1, p=2)
    node("Mul", "unit shown", "weighted")
    node("Sub", "texture mean", "centred")
    node("Mul", "centred scale", "scaled")
    node("Concat", "weighted scaled", "point", axis=1)
    # |point - reference|^2, expanded
    node("ReduceSumSquare", "point", "own_square", axes=[1], keepdims=1)
    node("MatMul", "point minus_twice", "products")
    node("Add", "products squares", "partial")
    node("Add", "partial own_square", "squared")
    node("TopK", "squared k", "nearest which", largest=0)
    node("Gather", "nearest last", "kth", axis=1)
    node("Max", "kth zero", "positive")
    node("Sqrt", "positive", "distance")
    model.graph.output.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]))
    return model


def _finish(
    model: ModelProto, nodes: list[onnx.NodeProto], logits: str, classes: int
) -> ModelProto:
    softmax = helper.make_node("Softmax", [logits], ["probabilities"], axis=1)
    model.graph.node.extend([*nodes, softmax])
    model.graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", classes])
    )
    return model
