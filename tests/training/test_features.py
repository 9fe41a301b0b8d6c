import subprocess
import sys
from pathlib import Path

import pytest

BUSY = """
import torch
from meadow import params, prepare
from meadow.pipeline import manifest
from meadow.training import features
from meadow.training.weights import Weights

prepare.prepare()
torch.nn.Conv2d(3, 64, 3)(torch.zeros(16, 3, 64, 64)).sum().backward()
p = params.load().train
print(features.backbone(p, Weights.of(p.weights), manifest.load())[0].name)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("toy_set")
def test_a_backbone_is_exported_where_pytorch_works_already(tmp_path: Path) -> None:
    """Its threads do not live on in a forked process, which would wait for them for ever."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY], check=True, capture_output=True, text=True, timeout=120
    )

    assert done.stdout == "backbone.onnx\n"
