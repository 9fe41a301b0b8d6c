from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from meadow.errors import MeadowError
from meadow.inference.onnx_session import digest, external_data, open_session
from meadow.training import architectures, onnx_export, onnx_graph, quantization
from meadow.training.weights import Weights

NONE = Weights("none", "none")
# One of each module of torchvision's registry, the smallest, and a size that it can take; two where
# they compute differently.
FAMILIES = {
    "alexnet": 96,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11": 64,
    "vit_b_32": 64,
}
# Of timm a small one of each kind: tokens, stages, other layouts, padding by the input's size.
OF_TIMM = {
    "timm/convnext_atto": 64,
    "timm/deit_tiny_distilled_patch16_224": 64,
    "timm/mobilenetv3_small_050": 64,
    "timm/regnety_002": 64,
    "timm/resnet10t": 64,
    "timm/swin_tiny_patch4_window7_224": 224,
    "timm/tf_efficientnet_lite0": 96,
    "timm/tf_efficientnetv2_b0": 64,
    "timm/vit_small_patch14_dinov2": 70,
    "timm/vit_tiny_patch16_224": 64,
}


@pytest.mark.slow
@pytest.mark.parametrize("arch", [*FAMILIES, *OF_TIMM])
def test_a_network_of_each_family_is_served_as_pytorch_computes_it(
    arch: str, tmp_path: Path
) -> None:
    """Logits for finetune and features for a probe: ONNX Runtime agrees to 1e-4 of the largest."""
    size = (FAMILIES | OF_TIMM)[arch]
    network = architectures.build(arch, NONE, classes=3, size=size, seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    ways = {
        architectures.WithFeatures: ["logits", "features", "texture"],
        architectures.Features: ["features", "texture"],
    }
    for kind, outputs in ways.items():
        module = kind(network).eval()
        with torch.no_grad():
            expected = [output.numpy() for output in module(torch.from_numpy(pixels))]
        onnx_graph.save(
            onnx_export.exported(module, size=size, outputs=outputs), tmp_path / "network"
        )
        served_outputs = open_session(tmp_path / "network").run(outputs, {"pixels": pixels})

        for name, wanted, served in zip(outputs, expected, served_outputs, strict=True):
            assert served.shape == wanted.shape
            assert wanted.shape[0] == 2
            assert wanted.ndim == 2
            assert name != "logits" or wanted.shape == (2, 3)
            if name == "texture":  # of a dead channel the logarithm of next to nothing
                served, wanted = np.exp(served), np.exp(wanted)
            assert np.abs(served - wanted).max() <= 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("arch", ["timm/crossvit_tiny_240", "timm/efficientvim_m1"])
def test_a_network_with_several_last_layers_is_refused(arch: str) -> None:
    """It would fail only later, in timm's own code: two families of timm have branches."""
    with pytest.raises(MeadowError, match=f"{arch} has several last layers"):
        architectures.build(arch, NONE, classes=2, size=240, seed=0)


def test_every_family_of_the_registry_is_covered() -> None:
    """A new family of torchvision must be looked at before it is offered."""
    known = torchvision.models.list_models(module=torchvision.models)
    modules = {torchvision.models.get_model_builder(name).__module__ for name in known}
    covered = {torchvision.models.get_model_builder(name).__module__ for name in FAMILIES}

    assert covered == modules


def test_features_have_an_earlier_block_in_them() -> None:
    """ResNet-18: 512 that the last layer sees, 256 of the last block but two."""
    network = architectures.build("resnet18", NONE, classes=2, size=64, seed=0)

    assert architectures.Features(network).eval()(torch.zeros(1, 64, 64, 3))[0].shape == (1, 768)


def test_features_of_timm_have_an_earlier_stage_in_them() -> None:
    """EfficientNet-Lite0: 1,280 of the last convolution, 112 of an earlier stage."""
    network = architectures.build("timm/tf_efficientnet_lite0", NONE, classes=2, size=64, seed=0)
    features, texture = architectures.Features(network).eval()(torch.zeros(1, 64, 64, 3))

    assert features.shape == (1, 1280 + 112)
    assert texture.shape == (1, 112)


def test_each_part_of_the_features_has_length_1() -> None:
    """So that no block outweighs another by the scale that its layers happen to have."""
    network = architectures.build("timm/tf_efficientnet_lite0", NONE, classes=2, size=64, seed=0)
    pixels = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    features, _ = architectures.Features(network).eval()(pixels)

    for part in features.split([1280, 112], dim=1):
        torch.testing.assert_close(part.norm(dim=1), torch.ones(2))


def test_padding_by_the_input_leaves_constants_in_the_graph() -> None:
    """So that quantisation finds the first convolution, and ONNX Runtime merges padding into it."""
    network = architectures.build("timm/tf_efficientnet_lite0", NONE, classes=2, size=65, seed=0)
    graph = onnx_export.exported(network, size=65, outputs=["logits"]).graph

    assert not {node.op_type for node in graph.node} & {"Ceil", "Max"}
    assert quantization.normalised_by_weights(graph) == 128  # timm's own mean, 127.5


def test_a_network_too_large_for_one_file_keeps_its_tensors_beside_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An ONNX file ends at 2 GiB; two of the registry are larger (vit_h_14, regnet_y_128gf)."""
    network = architectures.build("shufflenet_v2_x0_5", NONE, classes=2, size=64, seed=0)
    model = onnx_export.exported(network, size=64, outputs=["logits"])
    onnx_graph.save(model, tmp_path / "one.onnx")
    monkeypatch.setattr(onnx_graph, "LARGEST", 1000)
    onnx_graph.save(model, tmp_path / "two.onnx")
    pixels = np.zeros((1, 64, 64, 3), np.uint8)
    one, two = (
        open_session(tmp_path / name).run(None, {"pixels": pixels})[0]
        for name in ("one.onnx", "two.onnx")
    )

    assert not external_data(tmp_path / "one.onnx").exists()
    assert (tmp_path / "two.onnx").stat().st_size < 200_000
    assert np.array_equal(one, two)
    before = digest(tmp_path / "two.onnx")
    data = external_data(tmp_path / "two.onnx")
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert digest(tmp_path / "two.onnx") != before


def test_unequal_adaptive_pooling_is_computed_as_pytorch_does() -> None:
    """AlexNet at 96 px pools 2 x 2 places to 6 x 6, for which ONNX has no word."""
    x = torch.randn(2, 3, 5, 2, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.adaptive_avg_pool2d(x, (3, 6))

    assert torch.allclose(onnx_export.Pooling(5, 2, (3, 6))(x), expected, atol=1e-6)
