"""Each classification network of torchvision's registry, exported and compared with PyTorch.

For both methods: logits, as fine-tuning serves them, and a probe's features. Random weights, one
photo. It needs 15 GB of memory for the largest two, and a quarter of an hour.

    python bench/registry.py
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torchvision

from meadow.inference.onnx_session import open_session
from meadow.training import architectures, onnx_graph
from meadow.training.weights import Weights

SIZE = 224
WAYS = {
    architectures.WithFeatures: ["logits", "features", "texture"],
    architectures.Features: ["features", "texture"],
}


def main() -> None:
    """Print the largest difference of each, as a share of the largest value."""
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    names = torchvision.models.list_models(module=torchvision.models)
    worst = 0.0
    for name in names:
        network = architectures.build(name, Weights.of("none"), classes=3, size=SIZE, seed=0)
        differences = []
        for kind, outputs in WAYS.items():
            module = kind(network).eval()
            with torch.no_grad():
                expected = [each.numpy() for each in module(torch.from_numpy(pixels))]
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, "network.onnx")
                onnx_graph.save(architectures.exported(module, size=SIZE, outputs=outputs), file)
                found = open_session(file).run(outputs, {"pixels": pixels})
            for own, served in zip(expected, found, strict=True):
                scale = np.abs(own).max() or 1  # some last layers start at zero
                differences.append(np.abs(served - own).max() / scale)
        worst = max(worst, *differences)
        print(f"{name}: {max(differences):.1e}", flush=True)
    print(f"{len(names)} networks, the largest difference is {worst:.1e}")


if __name__ == "__main__":
    main()
