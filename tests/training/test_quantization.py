import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import Tensor, nn
from toys import photo

from meadow.inference.onnx_session import open_session
from meadow.pipeline.image import Preprocessing
from meadow.pipeline.manifest import Photos, Row
from meadow.training import architectures, onnx_export, onnx_graph, quantization
from meadow.training.quantization import Pixels
from meadow.training.weights import Weights

SIZE = 64
OUTPUTS = ["features", "texture"]
TARGETS = np.zeros(40, np.int64)
LEAVES = "c0524b60c3e91e2a3497c9314a0c37b4fda2d01edfbe771d8f114723d809b4d2"


def photos(n: int) -> Pixels:
    """Return the pixels of n photos."""
    see = Preprocessing(SIZE, "squash").resized
    return np.stack([see(photo(i)) for i in range(n)])


def network(arch: str) -> ModelProto:
    """Export an untrained network, its batch norms as if it had seen photos."""
    made = architectures.build(arch, Weights("none", "none"), classes=2, size=SIZE, seed=0)
    with torch.no_grad():
        made.train()(torch.from_numpy(photos(16)))
    return onnx_export.exported(architectures.Features(made), size=SIZE, outputs=OUTPUTS)


def run(model: ModelProto, folder: Path, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Return what a network makes of pixels."""
    onnx_graph.save(model, folder / "network.onnx")
    outputs: list[NDArray[np.float32]] = open_session(folder / "network.onnx").run(
        OUTPUTS, {"pixels": pixels}
    )
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [False, True], ids=["photos", "leaves"])
@pytest.mark.parametrize("arch", ["mobilenet_v2", "mobilenet_v3_small", "resnet18", "googlenet"])
def test_a_network_in_int8_says_nearly_the_same_in_a_third_of_the_bytes(
    arch: str, drawn: bool, tmp_path: Path
) -> None:
    """Features of photos that set no scale lie within a tenth of their length."""
    seen = photos(40)
    before = network(arch)
    expected = run(before, tmp_path, seen[32:])
    size = before.ByteSize()
    small = quantization.int8(before, quantization.leaves(SIZE) if drawn else seen[:32])
    quantised = run(small, tmp_path, seen[32:])

    assert small.ByteSize() < size / 3
    for wanted, served in zip(expected, quantised, strict=True):
        assert served.shape == wanted.shape
        assert np.linalg.norm(served - wanted) < 0.1 * np.linalg.norm(wanted)


def test_features_in_int8_have_length_1_to_the_last_bit(tmp_path: Path) -> None:
    """What follows the norm stays in float32: 8 bits would lose the small ones of 1,280 numbers."""
    seen = photos(4)
    features, _ = run(
        quantization.int8(network("timm/tf_efficientnet_lite0"), seen), tmp_path, seen
    )

    for part in np.split(features, [1280], axis=1):
        assert np.linalg.norm(part, axis=1) == pytest.approx(1, abs=1e-5)
        assert len(np.unique(part)) > 256


class Start(nn.Module):
    """A network that is one convolution, and looks at the pixels themselves too if `twice`."""

    def __init__(self, *, twice: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = architectures.Network(
            nn.Conv2d(3, 8, 3), (0.5, 0.45, 0.4), (0.25, 0.25, 0.2)
        )
        self.twice = twice

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network(pixels).mean((2, 3))
        return features, (pixels.float() if self.twice else features).mean(1)


def test_pixels_go_into_the_first_convolution_as_they_are(tmp_path: Path) -> None:
    """Mean and deviation move into its weights; nothing but one node stands before it."""
    seen = photos(8)
    before = onnx_export.exported(Start(twice=False), size=SIZE, outputs=OUTPUTS)
    expected, _ = run(before, tmp_path, seen)
    small = quantization.int8(before, seen)
    quantised, _ = run(small, tmp_path, seen)
    graph = small.graph
    (convolution,) = [node for node in graph.node if node.op_type == "Conv"]
    (reading,) = [node for node in graph.node if convolution.input[0] in node.output]
    (transpose,) = [node for node in graph.node if reading.input[0] in node.output]

    assert reading.op_type == "DequantizeLinear"
    assert list(transpose.input) == ["pixels"]
    np.testing.assert_allclose(quantised, expected, atol=0.02)


def test_equal_tensors_that_the_exporter_merged_are_found(tmp_path: Path) -> None:
    """Without weights all biases are zero, and those of one length are one tensor."""
    made = architectures.build(
        "mobilenet_v3_small", Weights("none", "none"), classes=2, size=SIZE, seed=0
    )
    before = onnx_export.exported(architectures.Features(made), size=SIZE, outputs=OUTPUTS)
    assert "Identity" in {node.op_type for node in before.graph.node}
    seen = photos(8)
    expected, _ = run(before, tmp_path, seen)
    quantised, _ = run(quantization.int8(before, seen), tmp_path, seen)

    np.testing.assert_allclose(quantised, expected, atol=0.1)


def test_pixels_with_another_user_stay_as_they_are(tmp_path: Path) -> None:
    """Then nothing moves, and the answers are right all the same."""
    seen = photos(8)
    before = onnx_export.exported(Start(twice=True), size=SIZE, outputs=OUTPUTS)
    expected = run(before, tmp_path, seen)
    small = quantization.int8(before, seen)
    quantised = run(small, tmp_path, seen)

    assert "Sub" in {node.op_type for node in small.graph.node}
    np.testing.assert_allclose(quantised[0], expected[0], atol=0.02)
    np.testing.assert_allclose(quantised[1], expected[1])


def test_a_network_too_large_for_one_file_is_quantised_alike(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Above 2 GiB every file on the way needs its tensors beside it."""
    model, sample = network("shufflenet_v2_x0_5"), photos(4)
    copy = ModelProto.FromString(model.SerializeToString())
    small = quantization.int8(model, sample)
    with monkeypatch.context() as patch:
        patch.setattr(onnx_graph, "LARGEST", 1000)
        large = quantization.int8(copy, sample)

    for one, other in zip(run(small, tmp_path, sample), run(large, tmp_path, sample), strict=True):
        assert np.array_equal(one, other)


def test_any_number_of_threads_makes_the_same_bytes() -> None:
    """ONNX Runtime takes as many as there are cores to measure the scales."""
    seen, cores, made = photos(8), os.sched_getaffinity(0), []
    try:
        for usable in (cores, {min(cores)}):
            os.sched_setaffinity(0, usable)
            small = quantization.int8(network("shufflenet_v2_x0_5"), seen)
            made.append(small.SerializeToString(deterministic=True))
    finally:
        os.sched_setaffinity(0, cores)

    assert made[0] == made[1]


def test_the_sample_goes_by_content() -> None:
    """The order of the photos is nothing that a network may depend on."""
    rows = [Row(str(i), "a", "train", "", "", f"{i * 7919 % 40:05}", 1, 1, 1) for i in range(40)]
    pixels, back = photos(40), slice(None, None, -1)
    one, other = Photos(rows, pixels, TARGETS), Photos(rows[back], pixels[back], TARGETS)

    assert len(quantization.sample(one)) == quantization.SAMPLE
    assert np.array_equal(quantization.sample(one), quantization.sample(other))


def test_leaves_are_the_same_bytes_everywhere() -> None:
    """Networks depend on them, and the cached features on the networks."""
    drawn = quantization.leaves(SIZE)

    assert drawn.shape == (quantization.SAMPLE, SIZE, SIZE, 3)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == LEAVES
