"""Small photos and photo sets, drawn in a moment."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from meadow.inference.classifier import NETWORK, Classifier, describe
from meadow.pipeline.image import Preprocessing

SetParams = Callable[..., None]
SQUASH = Preprocessing(32, "squash")
TINTS = ((200, 180, 40), (40, 120, 60), (90, 60, 160), (180, 60, 60), (60, 160, 180))


def photo(number: int, tint: tuple[int, int, int] = TINTS[0], side: int = 72) -> Image.Image:
    """Draw a photo of coarse random blocks in shades of one colour; each number looks different."""
    blocks = np.random.default_rng(number).integers(0, 160, (6, 6, 1))
    pixels = np.clip(blocks + np.array(tint) - 80, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side + 8), Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def draw_set(folder: Path, counts: dict[str, int]) -> Path:
    """Draw so many photos of each class."""
    number = 0
    for tint, (label, count) in zip(TINTS, counts.items(), strict=False):
        (folder / label).mkdir(parents=True)
        for i in range(count):
            (folder / label / f"{i:03}.jpg").write_bytes(encoded(photo(number, tint), quality=92))
            number += 1
    return folder


def colour_classifier(
    folder: Path,
    classes: list[str],
    *,
    preprocessing: Preprocessing = SQUASH,
    set_threshold: float = 0.6,
) -> Path:
    """Write a classifier that looks at the mean colour of the upper left quarter alone.

    Its classes lie at equal steps from red (the first) to green (the last); the bluer, the farther
    from what it knows. It says so little that a test can foretell each answer.
    """
    size = preprocessing.size
    quarter = np.zeros((size, size, 1), np.float32)
    quarter[: size // 2, : size // 2] = 4 / size**2 / 255
    at = np.linspace(1, -1, len(classes), dtype=np.float32)  # red minus green
    weights = np.stack([4 * at, -4 * at, 0 * at]).astype(np.float32)
    constants = {
        "quarter": quarter,
        "axes": np.array([1, 2]),
        "weights": weights,
        "bias": -2 * at**2,
        "blue": np.array([[0], [0], [1]], np.float32),
        "one": np.array([1]),
    }
    nodes = [
        helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "quarter"], ["seen"]),
        helper.make_node("ReduceSum", ["seen", "axes"], ["colour"], keepdims=0),
        helper.make_node("Gemm", ["colour", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
        helper.make_node("MatMul", ["colour", "blue"], ["far"]),
        helper.make_node("Squeeze", ["far", "one"], ["distance"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", size, size, 3])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(classes)]),
            helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["n"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / NETWORK)
    describe(
        folder,
        classes=classes,
        preprocessing=preprocessing,
        method="probe",
        arch="colours",
        coverage=0.95,
        set_threshold=set_threshold,
        distance_threshold=0.9,
    )
    Classifier.load(folder)
    return folder


def two_colours(
    first: tuple[int, int, int], rest: tuple[int, int, int], size: tuple[int, int] = (80, 60)
) -> Image.Image:
    """Draw a photo whose upper left quarter has another colour than the rest."""
    image = Image.new("RGB", size, rest)
    image.paste(first, (0, 0, size[0] // 2, size[1] // 2))
    return image
