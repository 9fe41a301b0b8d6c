"""The trained classifier: the one object behind both the test figures and the service."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.inference import conformal
from meadow.inference.batching import Batched, Runs
from meadow.inference.conformal import Probabilities
from meadow.inference.onnx_session import digest, open_session
from meadow.pipeline.image import Preprocessing

FOLDER = Path("models/classifier")
NETWORK = "model.onnx"
HELD_OUT = "held_out.npy"  # the cross-validation, where train made one; evaluate reads it


@dataclass(frozen=True)
class Answer:
    """What the classifier says of one photo.

    Attributes:
        probabilities: calibrated, (classes,), they sum to 1.
        prediction_set: which classes are in it, (classes,); it holds the true one for the share
            `coverage` of photos like those that were learned from. An empty one is a photo between
            the classes, one with several a photo that is hard to tell.
        distance: to the photos that were learned from, 0 to 2.
        in_distribution: whether it is as near as the share `coverage` of photos like those are.

    """

    probabilities: Probabilities
    prediction_set: NDArray[np.bool_]
    distance: float
    in_distribution: bool

    @property
    def best(self) -> int:
        """Index of the most probable class."""
        return int(self.probabilities.argmax())

    def to_dict(self, classes: Sequence[str], top_k: int | None = None) -> dict[str, Any]:
        """Return the answer as the service and `meadow predict` give it, but for the model's name.

        Args:
            classes: their names, in the order of the probabilities.
            top_k: how many probabilities, the highest first; None gives all, in that order.

        """
        named = list(zip(classes, self.probabilities.tolist(), strict=True))
        ranked = sorted(named, key=lambda pair: -pair[1])
        held = zip(classes, self.prediction_set, strict=True)
        return {
            "label": classes[self.best],
            "confidence": float(self.probabilities[self.best]),
            "probabilities": dict(ranked[:top_k] if top_k else named),
            "prediction_set": [name for name, is_held in held if is_held],
            "in_distribution": self.in_distribution,
        }


@dataclass(frozen=True)
class Classifier:
    """From the bytes of a photo to calibrated probabilities.

    Attributes:
        classes: names, in the order of the probabilities.
        preprocessing: what makes the network's input from a photo.
        version: SHA-256 of the network; see `onnx_session.digest`.
        about: all of model.json.
        session: the network, `pixels` (n, size, size, 3) uint8 to `probabilities` (n, classes)
            and `distance` (n,).

    """

    classes: Sequence[str]
    preprocessing: Preprocessing
    version: str
    about: dict[str, Any]
    session: Runs

    @classmethod
    def load(
        cls,
        folder: Path = FOLDER,
        *,
        threads: int = 1,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> "Classifier":
        """Load what train wrote; `threads` work on one photo, on a GPU photos are batched.

        Raises:
            MeadowError: there is no model or device, or model.onnx is not the one that model.json
                describes.

        """
        try:
            about = json.loads((folder / "model.json").read_text("utf-8"))
            version = digest(folder / NETWORK)
        except FileNotFoundError:
            raise MeadowError(
                f"{folder} holds no model. Run `dvc repro train` or `dvc pull {folder}`."
            ) from None
        if version != about["sha256"]:
            raise MeadowError(
                f"{folder / NETWORK} is damaged: its SHA-256 is not the one in model.json."
                " Run `dvc checkout --force models/classifier`."
            )
        session = open_session(folder / NETWORK, threads=threads, device=device)
        return cls(
            classes=about["classes"],
            preprocessing=Preprocessing(**about["preprocessing"]),
            version=version,
            about=about,
            session=session if device == "cpu" else Batched(session),
        )

    def warm(self) -> None:
        """Answer twice, as the first runs of a session are slow.

        Raises:
            ArithmeticError: see `answer`.

        """
        size = self.preprocessing.size
        for _ in range(2):
            self.answer(np.zeros((size, size, 3), np.uint8))

    def classify(self, pixels: NDArray[np.uint8]) -> tuple[Probabilities, Probabilities]:
        """Classify preprocessed photos, (n, size, size, 3).

        Returns:
            Probabilities (n, classes), each row sums to 1, and the distance to what was learned
            from, (n,).

        """
        outputs = self.session.run(["probabilities", "distance"], {"pixels": pixels})
        probabilities, distance = (output.astype(np.float64) for output in outputs)
        return probabilities / probabilities.sum(axis=1, keepdims=True), distance

    def predict(self, photo: bytes) -> Answer:
        """Classify the bytes of one photo file.

        Raises:
            PhotoError: not a photo that Meadow takes.
            ArithmeticError: see `answer`.

        """
        return self.answer(self.preprocessing(photo))

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Classify one preprocessed photo, (size, size, 3).

        Raises:
            ArithmeticError: the network's output is not finite, or not one row of classes.

        """
        probabilities, distance = self.classify(pixels[None])
        if (
            probabilities.shape != (1, len(self.classes))
            or not np.isfinite([*probabilities[0], *distance]).all()
        ):
            raise ArithmeticError(f"the network answers {probabilities} at {distance}")
        return Answer(
            probabilities=probabilities[0],
            distance=float(distance[0]),
            prediction_set=conformal.prediction_set(probabilities[0], self.about["set_threshold"]),
            in_distribution=bool(distance[0] <= self.about["distance_threshold"]),
        )


def describe(
    folder: Path,
    *,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    **about: Any,
) -> None:
    """Write model.json beside model.onnx; `about` is what else is to be known of the model."""
    description = {
        "classes": list(classes),
        "preprocessing": asdict(preprocessing),
        "sha256": digest(folder / NETWORK),
        **about,
    }
    text = json.dumps(description, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "model.json").write_text(text + "\n", "utf-8")
