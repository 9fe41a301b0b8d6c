import hashlib
from pathlib import Path

import numpy as np
import pytest
from toys import colour_classifier

from meadow.inference.onnx_session import digest, external_data, open_session


def test_one_photo_is_answered_alike_alone_and_among_others(tmp_path: Path) -> None:
    """At any number of threads, to the last bit."""
    model = colour_classifier(tmp_path, ["red", "green"]) / "model.onnx"
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    together = open_session(model, threads=3).run(None, {"pixels": pixels})
    alone = [open_session(model).run(None, {"pixels": pixels[i : i + 1]}) for i in range(5)]

    for output, values in enumerate(together):
        assert np.array_equal(values, np.concatenate([answer[output] for answer in alone]))


def test_the_digest_is_of_the_file_and_its_external_data(tmp_path: Path) -> None:
    """A bit of either changes it."""
    model = tmp_path / "network.onnx"
    model.write_bytes(b"graph")
    alone = digest(model)
    external_data(model).write_bytes(b"tensors")

    assert alone == hashlib.sha256(b"graph").hexdigest()
    assert digest(model) == hashlib.sha256(b"graphtensors").hexdigest()


def test_a_missing_model_has_no_digest(tmp_path: Path) -> None:
    """Its external data alone are no model."""
    external_data(tmp_path / "x.onnx").write_bytes(b"tensors")

    with pytest.raises(FileNotFoundError):
        digest(tmp_path / "x.onnx")
