"""ONNX Runtime, the one engine that computes features, test figures and served answers."""

import hashlib
from pathlib import Path

import onnxruntime as ort

ort.set_default_logger_severity(3)  # errors: its warnings, of graphs that it mends itself, are red


def open_session(model: Path, *, threads: int = 1) -> ort.InferenceSession:
    """Open an ONNX model.

    With one thread a run happens on the calling thread: several may run at once, the result of
    each photo is the same at any number of them, and nothing spins while it waits.

    Args:
        model: its file.
        threads: for the inside of one run.

    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, ["CPUExecutionProvider"])


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
