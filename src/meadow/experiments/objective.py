"""The figures that experiments may be selected on: never those of the test photos."""

import json
from dataclasses import dataclass
from pathlib import Path

from meadow.errors import MeadowError
from meadow.training.methods import METHODS, Direction

EVALUATED = "metrics/evaluate.json"
TRAINED = "metrics/train/metrics.json"


@dataclass(frozen=True)
class Objective:
    """A figure, and whether little or much of it is good."""

    name: str
    direction: Direction

    @classmethod
    def of(cls, name: str | None, methods: set[str]) -> "Objective":
        """Return the objective of this name, or the usual one that all `methods` have.

        Raises:
            MeadowError: it is a test figure, unknown, or not made by a method.

        """
        first, *others = (METHODS[method].figures for method in sorted(methods))
        common = {key: better for key, better in first.items() if all(key in o for o in others)}
        if not common:
            raise MeadowError(
                f"{' and '.join(sorted(methods))} have no figure in common that could be compared."
                " Sweep one train.method at a time."
            )
        name = name or next(iter(common))
        if name in common:
            return cls(name, common[name])
        makers = [method for method, known in METHODS.items() if name in known.figures]
        reason = "there is no such figure"
        if makers:
            reason = f"train.method {makers[0]} makes it, and this sweep has another method"
        elif any(f"cv_{name}" in method.figures for method in METHODS.values()):
            reason = (
                "it is measured on the test photos, and is honest only if nothing selects on it"
            )
        raise MeadowError(
            f"--metric {name} is refused: {reason}. Choose from: {', '.join(common)}."
        )

    @property
    def file(self) -> str:
        """The metrics file that has it."""
        return EVALUATED if self.name.startswith("cv_") else TRAINED

    @property
    def sorting(self) -> str:
        """What sorts `dvc exp show` by it."""
        order = "asc" if self.direction == "minimize" else "desc"
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
