"""The model of a commit in MLflow's format: what `mlflow models serve` serves.

The folder is written here, not by `mlflow.pyfunc.save_model`: that imports pandas, runs the model,
and puts the time and a random id into the files.
"""

import base64
import io
import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

from meadow.inference.classifier import NETWORK
from meadow.storage import dvc_git

CLASSIFIER = Path(__file__).with_name("photo_classifier.py")
# All of a commit's code that an answer needs, and the packages that this code imports.
CODE = [f"src/meadow/{name}" for name in ("__init__.py", "errors.py", "pipeline", "inference")]
REQUIREMENTS = "requirements/serving.txt"
PACKAGE = re.compile(r"(?:numpy|onnxruntime|pi-heif|pillow)==.*")
EXAMPLE_SIDE = 64  # pixels of a green square: no photo leaves the set for an example
INPUTS = [{"type": "binary", "name": "photo", "required": True}]
OUTPUTS: list[dict[str, Any]] = [
    {"type": "string", "name": "label"},
    {"type": "double", "name": "confidence"},
    {"type": "map", "values": {"type": "double"}, "name": "probabilities"},
    {"type": "array", "items": {"type": "string"}, "name": "prediction_set"},
    {"type": "boolean", "name": "in_distribution"},
]


def write(folder: Path, commit: str, files: Mapping[str, Path]) -> None:
    """Write a model's folder with two flavours: photos to answers, and the network alone.

    Args:
        folder: to be made.
        commit: whose code answers.
        files: of models/classifier, by their paths below it.

    """
    inside = folder / "artifacts/classifier"
    inside.mkdir(parents=True)
    for name, file in files.items():
        if name == "model.json" or name.startswith(NETWORK):
            (inside / name).symlink_to(file.absolute())
    code, pinned = dvc_git.git("rev-parse", f"{commit}:src", f"{commit}:{REQUIREMENTS}").split()
    (folder / "artifacts/code.zip").write_bytes(_code(code, commit))
    shutil.copy(CLASSIFIER, folder)
    (folder / "requirements.txt").write_text(_requirements(pinned))
    python = {"python": "3.11", "dependencies": ["-r requirements.txt"]}
    _write_yaml(folder / "python_env.yaml", python)
    example = io.BytesIO()
    Image.new("RGB", (EXAMPLE_SIDE, EXAMPLE_SIDE), "green").save(example, "PNG")
    data = [[base64.b64encode(example.getvalue()).decode()]]
    _write_yaml(folder / "input_example.json", {"columns": ["photo"], "data": data})
    _write_yaml(folder / "MLmodel", _described())


_ARCHIVES: dict[str, bytes] = {}  # by tree: most experiments have the same code


def _code(tree: str, commit: str) -> bytes:
    if tree not in _ARCHIVES:
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder, "code.zip")
            dvc_git.git("archive", f"--output={archive}", commit, *CODE)
            _ARCHIVES[tree] = archive.read_bytes()
    return _ARCHIVES[tree]


@cache
def _requirements(blob: str) -> str:
    pinned = dvc_git.git("cat-file", "blob", blob).splitlines()
    packages = [f"mlflow=={version('mlflow-skinny')}", *filter(PACKAGE.fullmatch, pinned)]
    return "\n".join([*packages, ""])


def _described() -> dict[str, Any]:
    paths = {"classifier": "artifacts/classifier", "code": "artifacts/code.zip"}
    return {
        "mlflow_version": version("mlflow-skinny"),
        "flavors": {
            "python_function": {
                "loader_module": "mlflow.pyfunc.loaders.code_model",
                "model_code_path": CLASSIFIER.name,
                "artifacts": {name: {"path": path, "uri": path} for name, path in paths.items()},
                "env": {"virtualenv": "python_env.yaml"},
                "python_version": "3.11",
            },
            "onnx": {
                "data": f"{paths['classifier']}/{NETWORK}",
                "onnx_version": version("onnx"),
                "providers": ["CPUExecutionProvider"],
            },
        },
        "signature": {"inputs": json.dumps(INPUTS), "outputs": json.dumps(OUTPUTS)},
        "saved_input_example_info": {
            "artifact_path": "input_example.json", "type": "dataframe", "pandas_orient": "split",
        },
    }  # fmt: skip


def _write_yaml(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n")  # JSON is YAML
