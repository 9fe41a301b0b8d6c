"""ONNX Runtime, the one engine that computes features, test figures and served answers."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from meadow.errors import MeadowError

CUDA = "CUDAExecutionProvider"
PROVIDERS: dict[str, list[Any]] = {
    "cpu": ["CPUExecutionProvider"],
    # float32 as it is, not TF32; no search for each size that a batch may have
    "cuda": [(CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"})],
}
ort.set_default_logger_severity(3)  # errors: its warnings, of graphs that it mends itself, are red


class Session(ort.InferenceSession):
    """An ONNX model to be run. It is pickled as its files, for other machines."""

    def __init__(self, model: Path, threads: int, device: str = "cpu") -> None:
        self.model, self.threads = model, threads
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        super().__init__(str(model), options, PROVIDERS[device])

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as bytes."""
        files = [file for file in (self.model, external_data(self.model)) if file.exists()]
        return _opened, ({file.name: file.read_bytes() for file in files}, self.threads)

    def outputs(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Return outputs for photos, (n, size, size, 3)."""
        arrays: list[NDArray[np.float32]] = self.run(names, {"pixels": pixels})
        return arrays


def open_session(
    model: Path, *, threads: int = 1, device: Literal["cpu", "cuda"] = "cpu"
) -> Session:
    """Open an ONNX model.

    With one thread a run happens on the calling thread: several may run at once, the result of
    each photo is the same at any number of them, and nothing spins while it waits.

    Args:
        model: its file.
        threads: for the inside of one run.
        device: what computes.

    Raises:
        MeadowError: this ONNX Runtime cannot compute there.

    """
    if device == "cuda" and CUDA not in (there := ort.get_available_providers()):
        raise MeadowError(
            f"MEADOW_DEVICE=cuda: this ONNX Runtime has {', '.join(there)} alone. Run `pip"
            " uninstall onnxruntime` and `pip install"
            f" onnxruntime-gpu=={version('onnxruntime')}`, or set MEADOW_DEVICE=cpu."
        )
    session = Session(model, threads, device)
    if device == "cuda" and CUDA not in session.get_providers():
        raise MeadowError(
            "MEADOW_DEVICE=cuda: ONNX Runtime finds no GPU, or not the CUDA and cuDNN that it was"
            " built for. Look at `nvidia-smi`, or set MEADOW_DEVICE=cpu."
        )
    return session


def _opened(files: Mapping[str, bytes], threads: int) -> Session:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            Path(folder, name).write_bytes(data)
        return Session(Path(folder, next(iter(files))), threads)


def digest(model: Path) -> str:
    """Return the SHA-256 of an ONNX model: its file, followed by its external data if it has any.

    Raises:
        FileNotFoundError: there is none.

    """
    total = hashlib.sha256()
    for file in (model, external_data(model)):
        if file == model or file.exists():
            with file.open("rb") as stream:
                while part := stream.read(2**20):
                    total.update(part)
    return total.hexdigest()


def external_data(model: Path) -> Path:
    """Return where the tensors of a network are that is larger than one ONNX file can be."""
    return model.with_name(model.name + ".data")
