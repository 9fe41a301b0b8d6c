"""ONNX Runtime, the one engine that computes features, test figures and served answers."""

from pathlib import Path

import onnxruntime as ort


def open_session(model: Path | bytes, *, threads: int = 1) -> ort.InferenceSession:
    """Open an ONNX model.

    With one thread a run happens on the calling thread: several may run at once, the result of
    each photo is the same at any number of them, and nothing spins while it waits.

    Args:
        model: a file, or its bytes.
        threads: for the inside of one run.

    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(
        model if isinstance(model, bytes) else str(model), options, ["CPUExecutionProvider"]
    )
