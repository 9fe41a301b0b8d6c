import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from toys import colour_classifier

from meadow.errors import MeadowError
from meadow.inference.onnx_session import CUDA, digest, external_data, open_session


def test_one_photo_is_answered_alike_at_any_number_of_runs_at_once(tmp_path: Path) -> None:
    """To the last bit: the service's threads share one session."""
    model = colour_classifier(tmp_path, ["red", "green"]) / "model.onnx"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 1, 32, 32, 3), dtype=np.uint8)
    session = open_session(model)

    def run(photo: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        answer: list[NDArray[np.float32]] = session.run(None, {"pixels": photo})
        return answer

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(run, pixels))

    for photo, answer in zip(pixels, at_once, strict=True):
        assert all(map(np.array_equal, answer, run(photo)))


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


@pytest.mark.parametrize("built", [False, True], ids=["not built for one", "none found"])
def test_a_gpu_that_is_not_there_is_an_error_with_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built: bool
) -> None:
    """ONNX Runtime itself would go on to the CPU with a warning at most."""
    model = colour_classifier(tmp_path, ["red", "green"]) / "model.onnx"
    there = [CUDA, "CPUExecutionProvider"] if built else ["CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: there)
    session = open_session(model)
    monkeypatch.setattr("meadow.inference.onnx_session.Session", lambda *_: session)
    step = "nvidia-smi" if built else "pip install onnxruntime-gpu=="

    with pytest.raises(MeadowError, match=f"MEADOW_DEVICE=cuda.*{step}.*MEADOW_DEVICE=cpu"):
        open_session(model, device="cuda")
