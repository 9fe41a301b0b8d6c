"""What train and evaluate found: the tables and sentences that report, card and terminal share."""

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from meadow.errors import MeadowError
from meadow.evaluation import predictions
from meadow.evaluation.predictions import Prediction
from meadow.pipeline import manifest, provenance
from meadow.pipeline.manifest import Prepared
from meadow.pipeline.splits import SPLITS
from meadow.reporting.html import Table

LONGEST = 50  # lines of a table
NAMED = 5  # classes that a sentence names; of more it gives the number

# What the table of figures shows: name, key in metrics/evaluate.json, format.
MEASURED = [
    ("accuracy", "accuracy", ".1%"),
    ("top-5 accuracy", "top_5_accuracy", ".1%"),
    ("accuracy, cross-validated", "cv_accuracy", ".1%"),
    ("log-loss, cross-validated", "cv_log_loss", ".3f"),
    ("log-loss", "log_loss", ".3f"),
    ("Brier score", "brier", ".3f"),
    ("calibration error", "ece", ".3f"),
    ("prediction set holds the true class", "set_coverage", ".1%"),
    ("in distribution", "in_distribution", ".1%"),
    ("answered: one class in the set, in distribution", "answered_share", ".1%"),
    ("accuracy of what is answered", "answered_accuracy", ".1%"),
    ("most confident photos with 99 % accuracy, cross-validated", "cv_share_at_99", ".1%"),
]


@dataclass(frozen=True)
class Findings:
    """All that is known of a classifier.

    Attributes:
        about: model.json.
        provenance: what evaluate measured, and with what.
        ready: what prepare handed on.
        figures: of evaluate.
        verdict: of the gate.
        test: the answers to the test photos.
        out_of_fold: those to the train and val photos, by heads that did not see them, the most
            doubtful label first; empty where train learned all layers.
        class_table: classes.csv.

    """

    about: Mapping[str, Any]
    provenance: Mapping[str, Any]
    ready: Prepared
    figures: Mapping[str, float]
    verdict: Mapping[str, Any]
    test: Sequence[Prediction]
    out_of_fold: Sequence[Prediction]
    class_table: Sequence[Mapping[str, str]]

    @classmethod
    def read(cls) -> "Findings":
        """Read what prepare, train and evaluate have left.

        Raises:
            MeadowError: some of it is missing, or of another model.

        """
        try:
            about = _json("models/classifier/model.json")
            figures, verdict = (
                provenance.read(Path(), file, about["sha256"])
                for file in (provenance.FIGURES, provenance.VERDICT)
            )
            if figures is None or verdict is None:
                raise MeadowError(
                    f"{provenance.FIGURES} and {provenance.VERDICT} are missing, or of another"
                    " model than models/classifier. Run `dvc repro evaluate` or `dvc checkout`."
                )
            return cls(
                about=about,
                provenance=_json(provenance.FILE),
                ready=manifest.load(),
                figures=figures,
                verdict=verdict,
                test=predictions.load(predictions.TEST),
                out_of_fold=predictions.load(predictions.OUT_OF_FOLD),
                class_table=records(Path("reports/classes.csv")),
            )
        except FileNotFoundError as error:
            raise MeadowError(
                f"{error.filename} is missing. Run `dvc repro evaluate` or `dvc pull`."
            ) from None

    @property
    def classes(self) -> str:
        """The names of the classes, or how many there are."""
        names = self.ready.classes
        few = len(names) <= NAMED
        return f"{', '.join(names[:-1])} and {names[-1]}" if few else f"{len(names)} classes"

    @property
    def headline(self) -> str:
        """The interval of the test accuracy in words, rounded outwards."""
        low = math.floor(self.figures["accuracy_low"] * 100)
        high = math.ceil(self.figures["accuracy_high"] * 100)
        return f"Of 100 photos like these, {low} to {high} are classified correctly."

    @property
    def mistakes(self) -> list[Prediction]:
        """The misclassified test photos, the most confident answers first."""
        wrong = [answer for answer in self.test if not answer.correct]
        return sorted(wrong, key=lambda answer: (-answer.confidence, answer.path))

    @property
    def measured(self) -> Table:
        """The figures, with the intervals of those that have one."""
        rows = []
        for name, key, form in MEASURED:
            if key not in self.figures:
                continue
            interval = ""
            if f"{key}_low" in self.figures:
                low, high = self.figures[f"{key}_low"], self.figures[f"{key}_high"]
                interval = f"{low:{form}} to {high:{form}}"
            elif f"{key}_if_perfect" in self.figures:
                interval = f"{self.figures[f'{key}_if_perfect']:{form}} if perfect"
            rows.append([name, f"{self.figures[key]:{form}}", interval])
        photos = f"{self.figures['n_test']} test photos"
        return Table("Figures", [photos, "measured", "95 % interval"], rows)

    @property
    def photos(self) -> Table:
        """How many photos of each class are in each split; the largest classes of many."""
        rows, classes = self.ready.rows, self.ready.classes
        count = Counter((row.label, row.split) for row in rows)
        total = Counter(row.label for row in rows)
        shown, more = classes, ""
        if len(classes) > LONGEST:
            shown = sorted(classes, key=lambda name: -total[name])[:LONGEST]
            more = f", the {LONGEST} largest of {len(classes)}"
        lines = [[name, *(f"{count[name, split]:,}" for split in SPLITS)] for name in shown]
        lines.append(["all", *(f"{len(self.ready.split(split)):,}" for split in SPLITS)])
        return Table(f"Photos of each class and split{more}", ["class", *SPLITS], lines)

    @property
    def per_class(self) -> Table:
        """How each class fares on the test photos; the worst classes of many."""
        shown, more = self.class_table, ""
        if len(shown) > LONGEST:
            more = f", the {LONGEST} worst of {len(shown)}"
            shown = sorted(shown, key=lambda line: float(line["recall"]))[:LONGEST]
        rows = [
            [
                line["class"],
                line["photos"],
                f"{float(line['recall']):.1%}",
                f"{float(line['recall_low']):.1%} to {float(line['recall_high']):.1%}",
                f"{float(line['precision']):.1%}",
            ]
            for line in shown
        ]
        header = ["class", "test photos", "recall", "95 % interval", "precision"]
        return Table(f"Classes{more}", header, rows)

    @property
    def origin(self) -> Table:
        """What the classifier was made of, and what evaluate measured it with."""
        about = {k: v for k, v in self.about.items() if k not in ("classes", "sha256")}
        rows = [[key, _text(value)] for key, value in sorted(about.items())]
        rows += [[key, _text(value)] for key, value in self.provenance.items()]
        return Table("Where it comes from", ["", "value"], rows)

    @property
    def summary(self) -> str:
        """What a terminal shows: figures, the gate's verdict, and what to look at."""
        table = tabulate(self.measured.rows, self.measured.header, "plain", disable_numparse=True)
        failed = [why for why in self.verdict["why"] if why.startswith("failed")]
        return "\n".join([table, *(f"gate {why}" for why in failed or ["passed"])])


def records(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    """Read a table as a dict for each line."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def _json(path: Path | str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(path).read_text("utf-8"))
    return content


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
