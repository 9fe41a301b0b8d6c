import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meadow.pipeline import cache
from meadow.pipeline.manifest import Photos, Row
from meadow.pipeline.parallel import Machines
from meadow.training import features

TARGETS = np.zeros(3, np.int64)
BUSY = """
import torch
from meadow import params, prepare
from meadow.pipeline import manifest
from meadow.training import features
from meadow.training.weights import Weights

prepare.prepare()
torch.nn.Conv2d(3, 64, 3)(torch.zeros(16, 3, 64, 64)).sum().backward()
p = params.load().train
print(features.backbone(p, Weights.of(p.weights, p.arch), manifest.load())[0].name)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("toy_set")
def test_a_backbone_is_exported_where_pytorch_works_already(tmp_path: Path) -> None:
    """Its threads do not live on in a forked process, which would wait for them for ever."""
    done = subprocess.run(
        [sys.executable, "-c", BUSY], check=True, capture_output=True, text=True, timeout=120
    )

    assert done.stdout.endswith("\nbackbone.onnx\n")


def test_features_are_in_the_order_of_the_photos_and_none_is_left_out(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photo without features is an error: the others would move to its label."""
    rows = [Row(str(i), "a", "train", "", "", str(i), 1, 1, 1) for i in (3, 1, 2)]
    parts = [
        Photos(some, np.zeros((3, 1, 1, 3), np.uint8), TARGETS) for some in (rows[:2], rows[2:])
    ]

    def compute(table: sqlite3.Connection, _network: Path, missing: list[Any], *_: object) -> None:
        for part, i in missing[:last]:
            key = part.rows[i].pixels_sha256
            blob = np.float32(key).tobytes()
            table.execute("INSERT INTO features VALUES (?, ?, ?)", (key, 2 * blob, blob))
        table.commit()

    monkeypatch.setattr(features, "_compute", compute)
    last = 3
    features.frozen(Path("none"), "digest", parts, machines=Machines())
    (file,) = cache.folder("features").glob("*.sqlite")
    os.utime(file, (1, 1))
    vectors, texture = features.frozen(Path("none"), "digest", parts, machines=Machines())
    last = 2
    with pytest.raises(KeyError, match="2"):
        features.frozen(Path("none"), "another", parts, machines=Machines())

    assert file.stat().st_mtime > 1  # read, so not the first to be evicted
    assert vectors.tolist() == [[3, 3], [1, 1], [2, 2]]
    assert texture.tolist() == [[3], [1], [2]]
