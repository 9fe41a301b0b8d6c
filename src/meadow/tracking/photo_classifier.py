"""The classifier as MLflow loads it: photo files as bytes in, answers as `meadow predict` gives.

MLflow runs this file itself ("models from code"), beside the model and the code of its commit.
Nothing is unpickled.
"""

import sys
from pathlib import Path
from typing import Any

import mlflow.pyfunc
from mlflow.models import set_model


class PhotoClassifier(mlflow.pyfunc.PythonModel):
    """Takes a table with the column `photo`, the bytes of a photo file in each row."""

    def load_context(self, context: Any) -> None:
        """Load the model by the code of its commit, whatever else of Meadow is loaded."""
        code, others = f"{context.artifacts['code']}/src", _take_out()
        sys.path.insert(0, code)
        try:
            from meadow.inference.classifier import Classifier

            self.classifier = Classifier.load(Path(context.artifacts["classifier"]))
        finally:
            sys.path.remove(code)
            _take_out()
            sys.modules.update(others)

    # MLflow reads type hints of this method as a schema.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ARG002
        """Answer for each photo, in their order."""
        photos = (bytes(photo) for photo in model_input["photo"])
        return [self.classifier.predict(photo).to_dict(self.classifier.classes) for photo in photos]


def _take_out() -> dict[str, Any]:
    """Take Meadow's modules out of those that are loaded, and return them."""
    names = [name for name in sys.modules if name.partition(".")[0] == "meadow"]
    return {name: sys.modules.pop(name) for name in names}


set_model(PhotoClassifier())
