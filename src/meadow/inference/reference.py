"""What the answers to photos like the learned ones look like: train writes it, drift reads it.

Numbers alone, of at most `MOST` photos; no pixels. Each photo is judged as a new one would be: by a
network that did not learn from it, and without its near-duplicates as neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from meadow.errors import MeadowError
from meadow.inference.signals import SIGNALS

FILE = "reference.npy"
FORMER = ("confidence", "distance", "brightness", "contrast", "sharpness", "warmth", "bytes")
MOST = 2000  # photos: a sample of this size tells shares apart that differ by 3 points


@dataclass(frozen=True)
class Reference:
    """Of m photos.

    Attributes:
        signals: values of each of `SIGNALS`, (m,). Without `detail` and `side` if an older
            version of Meadow wrote it.
        actual: index of the class that people gave, (m,).
        predicted: index of the class that is the most probable one, (m,).

    """

    signals: Mapping[str, NDArray[np.float64]]
    actual: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def save(self, folder: Path) -> None:
        """Write it beside the model."""
        columns = [*(self.signals[name] for name in SIGNALS), self.actual, self.predicted]
        np.save(folder / FILE, np.stack(columns, dtype=np.float64))

    @classmethod
    def load(cls, folder: Path) -> "Reference":
        """Read what train wrote.

        Raises:
            MeadowError: there is none, or it is damaged.

        """
        try:
            *signals, actual, predicted = np.load(folder / FILE, allow_pickle=False)
            names = FORMER if len(signals) == len(FORMER) else SIGNALS
            named = zip(names, signals, strict=True)
            return cls(
                {name: values for name, values in named if name in SIGNALS},
                actual.astype(np.int64),
                predicted.astype(np.int64),
            )
        except FileNotFoundError:
            raise MeadowError(
                f"{folder} has no {FILE}. Run `dvc repro train` or `dvc pull {folder}`."
            ) from None
        except (EOFError, OSError, ValueError):
            raise MeadowError(
                f"{folder / FILE} is damaged. Run `dvc checkout --force {folder}`."
            ) from None
