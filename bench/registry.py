"""Classification networks of torchvision and timm, exported and compared with PyTorch.

All of torchvision's registry, and 40 of timm's, a small one of each family. For both methods:
logits, as fine-tuning serves them, and a probe's features. Random weights, one photo. Torchvision
needs 15 GB of memory for the largest two, and a quarter of an hour; timm 3 GB, and 5 minutes.

    python bench/registry.py [timm|torchvision]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision

from meadow.inference.onnx_session import open_session
from meadow.training import architectures, onnx_export, onnx_graph
from meadow.training.weights import TIMM, Weights

SIZE = 224
WAYS = {
    architectures.WithFeatures: ["logits", "features", "texture"],
    architectures.Features: ["features", "texture"],
}
OF_TIMM = """
    beit_base_patch16_224 cait_xxs24_224 coatnet_pico_rw_224 convnext_atto convnextv2_atto
    davit_tiny deit3_small_patch16_224 deit_tiny_distilled_patch16_224 densenet121 dla34
    edgenext_xx_small efficientformer_l1 efficientnet_b0 efficientvit_b0 eva02_tiny_patch14_224
    fastvit_t8 ghostnet_050 hiera_tiny_224 hrnet_w18_small inception_next_atto levit_128s
    mambaout_femto mixer_s32_224 mobilenetv3_small_050 mobilenetv4_conv_small mobilevit_xxs
    mvitv2_tiny nfnet_f0 poolformer_s12 regnety_002 repvit_m0_9 resnet18 resnetv2_50x1_bit
    swin_tiny_patch4_window7_224 tf_efficientnet_lite0 tf_efficientnetv2_b0 tiny_vit_5m_224
    vit_small_patch14_dinov2 vit_small_patch16_dinov3 vit_tiny_patch16_224
"""


def largest_difference(arch: str) -> float:
    """Return it as a share of the largest value of the same output."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    network = architectures.build(arch, Weights("none", "none"), classes=3, size=SIZE, seed=0)
    differences = []
    for kind, outputs in WAYS.items():
        module = kind(network).eval()
        with torch.no_grad():
            expected = [output.numpy() for output in module(torch.from_numpy(pixels))]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "network.onnx")
            onnx_graph.save(onnx_export.exported(module, size=SIZE, outputs=outputs), file)
            served_outputs = open_session(file).run(outputs, {"pixels": pixels})
        for wanted, served in zip(expected, served_outputs, strict=True):
            scale = np.abs(wanted).max() or 1  # some last layers start at zero
            differences.append(np.abs(served - wanted).max() / scale)
    return float(max(differences))


def main() -> None:
    """Print the largest difference of each."""
    archs = {
        "torchvision": torchvision.models.list_models(module=torchvision.models),
        "timm": [TIMM + name for name in OF_TIMM.split()],
    }
    for library in sys.argv[1:] or archs:
        worst = 0.0
        for arch in archs[library]:
            difference = largest_difference(arch)
            worst = max(worst, difference)
            print(f"{arch}: {difference:.1e}", flush=True)
        print(f"{len(archs[library])} of {library}, the largest difference is {worst:.1e}")


if __name__ == "__main__":
    main()
