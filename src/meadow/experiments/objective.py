"""The figures that experiments may be selected on: never those of the test photos."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meadow.errors import MeadowError

EVALUATED = "metrics/evaluate.json"
TRAINED = "metrics/train/metrics.json"
Direction = Literal["minimize", "maximize"]
LEAST: Direction = "minimize"
MOST: Direction = "maximize"
FIGURES = {
    "cv_log_loss": LEAST,
    "cv_accuracy": MOST,
    "cv_brier": LEAST,
    "cv_ece": LEAST,
    "cv_auroc": MOST,
    "val.log_loss": LEAST,
    "val.accuracy": MOST,
}


@dataclass(frozen=True)
class Objective:
    """A figure, and whether little or much of it is good."""

    name: str
    direction: Direction

    @classmethod
    def of(cls, name: str | None, methods: set[str]) -> "Objective":
        """Return the objective of this name, or the usual one: the log-loss that `methods` make.

        Raises:
            MeadowError: it is a test figure, unknown, or not made by a method.

        """
        made = [each for each in FIGURES if methods == {_maker(each)}]
        if name is None and not made:
            raise MeadowError(
                "probe has figures by cross-validation, finetune on the val photos, and they cannot"
                " be compared. Sweep one train.method at a time."
            )
        name = name or made[0]
        if name in made:
            return cls(name, FIGURES[name])
        said = f"--metric {name} is refused: "
        if name in FIGURES:
            said += f"train.method {_maker(name)} makes it, and this sweep has another method."
        elif f"cv_{name}" in FIGURES:
            said += (
                "it is measured on the test photos, and is honest only if nothing selects on it."
            )
        else:
            said += "there is no such figure."
        raise MeadowError(f"{said} Choose from: {', '.join(made)}.")

    @property
    def file(self) -> str:
        """The metrics file that has it."""
        return EVALUATED if self.name.startswith("cv_") else TRAINED

    @property
    def sorting(self) -> str:
        """What sorts `dvc exp show` by it."""
        order = "asc" if self.direction == LEAST else "desc"
        return f" --sort-by {self.file}:{self.name} --sort-order {order}"

    def read(self, project: Path) -> float:
        """Return the figure of what was last run in a project.

        Raises:
            MeadowError: there is none; the network gave no finite number.

        """
        figure = json.loads((project / self.file).read_text())
        for key in self.name.split("."):
            figure = figure.get(key)
        if figure is None:
            raise MeadowError(f"{self.name} is no number.")
        return float(figure)


def _maker(figure: str) -> str:
    return "probe" if figure.startswith("cv_") else "finetune"
