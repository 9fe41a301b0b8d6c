"""Which model the figures on the test photos are of."""

import hashlib
import json
from pathlib import Path
from typing import Any

FIGURES = Path("metrics/evaluate.json")
VERDICT = Path("metrics/gate.json")  # of the gate
FILE = Path("reports/provenance.json")  # the SHA-256 of the model and of both, by evaluate
MODEL = "SHA-256 of model.onnx"


def sha256(*files: Path) -> dict[str, str]:
    """Return lines of `FILE` with the SHA-256 of files."""
    return {
        f"SHA-256 of {file.as_posix()}": hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def read(project: Path, file: Path, model: str) -> dict[str, Any] | None:
    """Read what evaluate found of a model.

    Args:
        project: the folder of the project, or what a Bento holds of it.
        file: `FIGURES` or `VERDICT`.
        model: SHA-256 of the network.

    Returns:
        The content of the file; None where there is none, or it is of another model, as after
        `dvc repro train` alone.

    """
    try:
        known = json.loads((project / FILE).read_text("utf-8"))
        data = (project / file).read_bytes()
    except FileNotFoundError:
        return None
    expected = (model, hashlib.sha256(data).hexdigest())
    if (known.get(MODEL), known.get(f"SHA-256 of {file.as_posix()}")) != expected:
        return None
    content: dict[str, Any] = json.loads(data)
    return content
