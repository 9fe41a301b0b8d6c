"""What evaluate has found: the tables and sentences that report, card and terminal share."""

import hashlib
import json
import math
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from meadow.evaluation import metrics
from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline import manifest
from meadow.pipeline.manifest import Prepared, Row
from meadow.pipeline.splits import SPLITS

LONGEST = 50  # lines of a table
PACKAGES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """Texts in rows, the first of which names a row."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Judged:
    """Photos and what was said of them: rows, probabilities (n, classes), class indices (n,)."""

    rows: Sequence[Row]
    probabilities: Floats
    targets: Ints

    @property
    def predicted(self) -> Ints:
        """The likeliest class of each."""
        likeliest: Ints = self.probabilities.argmax(axis=1)
        return likeliest

    @property
    def confidence(self) -> Floats:
        """Its probability."""
        most: Floats = self.probabilities.max(axis=1)
        return most


@dataclass(frozen=True)
class Findings:
    """All that is known of a classifier.

    Attributes:
        model: the classifier.
        ready: what prepare handed on.
        figures: of evaluate.
        verdict: of the gate.
        test: the test photos, and the answers of the served classifier.
        answers: the same, whole.
        out_of_fold: the train and val photos by heads that did not see them; None for finetune.
        limits: section `evaluate` of params.yaml.
        read: gives the bytes of a photo's file.

    """

    model: Classifier
    ready: Prepared
    figures: Mapping[str, float]
    verdict: Mapping[str, Any]
    test: Judged
    answers: Sequence[Answer]
    out_of_fold: Judged | None
    limits: Mapping[str, Any]
    read: Callable[[Row], bytes]

    @property
    def classes(self) -> str:
        """The names of the classes, or how many there are."""
        names = self.model.classes
        few = len(names) <= 5
        return f"{', '.join(names[:-1])} and {names[-1]}" if few else f"{len(names)} classes"

    @property
    def headline(self) -> str:
        """The interval of the test accuracy in words, rounded outwards."""
        low = math.floor(self.figures["accuracy_low"] * 100)
        high = math.ceil(self.figures["accuracy_high"] * 100)
        return f"Of 100 photos like these, {low} to {high} are labelled rightly."

    @property
    def measured(self) -> Table:
        """The figures, with the intervals of those that have one."""
        f = self.figures
        tests = f"{f['n_test']} test photos"
        rows = [["accuracy", f"{f['accuracy']:.1%}", self._range("accuracy")]]
        if self.out_of_fold:
            range_ = self._range("cv_accuracy")
            rows += [
                ["accuracy, cross-validated", f"{f['cv_accuracy']:.1%}", range_],
                ["log-loss, cross-validated", f"{f['cv_log_loss']:.3f}", ""],
            ]
        rows += [
            ["log-loss", f"{f['log_loss']:.3f}", ""],
            ["Brier score", f"{f['brier']:.3f}", ""],
            ["calibration error", f"{f['ece']:.3f}", f"{f['ece_if_perfect']:.3f} if perfect"],
            ["set holds the true class", f"{f['set_coverage']:.1%}", self._range("set_coverage")],
            ["photos called “in”", f"{f['in_distribution']:.1%}", ""],
        ]
        return Table("Figures", [tests, "measured", "95 % interval"], rows)

    @property
    def photos(self) -> Table:
        """How many photos of each class are in each split; the largest classes of many."""
        rows, classes = self.ready.rows, self.ready.classes
        count = Counter((row.label, row.split) for row in rows)
        largest = sorted(classes, key=lambda name: -sum(count[name, each] for each in SPLITS))
        lines = [
            [name, *(f"{count[name, each]:,}" for each in SPLITS)]
            for name in (classes if len(classes) <= LONGEST else largest[:LONGEST])
        ]
        lines.append(["all", *(f"{len(self.ready.split(each)):,}" for each in SPLITS)])
        more = f", the {LONGEST} largest of {len(classes)}" if len(classes) > LONGEST else ""
        return Table(f"Photos of each class and split{more}", ["class", *SPLITS], lines)

    @property
    def per_class(self) -> Table:
        """How each class fares on the test photos; the worst classes of many."""
        names = self.model.classes
        table = metrics.per_class(self.test.probabilities, self.test.targets)
        order = sorted(range(len(names)), key=lambda i: (table[i]["recall"], i))[:LONGEST]
        rows = [
            [
                names[i],
                f"{table[i]['photos']}",
                f"{table[i]['recall']:.1%}",
                f"{table[i]['recall_low']:.1%} to {table[i]['recall_high']:.1%}",
                f"{table[i]['precision']:.1%}",
            ]
            for i in (order if len(names) > LONGEST else range(len(names)))
        ]
        worst = f", the {LONGEST} worst of {len(names)}" if len(names) > LONGEST else ""
        header = ["class", "test photos", "found", "95 % interval", "right when said"]
        return Table(f"Classes{worst}", header, rows)

    @property
    def origin(self) -> Table:
        """What the classifier was made of and by."""
        about = {k: v for k, v in self.model.about.items() if k not in ("classes", "sha256")}
        rows = [["SHA-256 of model.onnx", self.model.version]]
        rows += [[key, _short(value)] for key, value in sorted(about.items())]
        rows += [[f"evaluate.{key}", _short(value)] for key, value in sorted(self.limits.items())]
        file = manifest.FOLDER / "manifest.csv"
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        rows.append([f"SHA-256 of {file.as_posix()}", digest])
        rows += [[name, version(name)] for name in PACKAGES]
        rows.append(["Python", platform.python_version()])
        return Table("Where it comes from", ["", "value"], rows)

    @property
    def summary(self) -> str:
        """What a terminal shows: figures, the gate's verdict, and what to look at."""
        table = tabulate(self.measured.rows, self.measured.header, "plain", disable_numparse=True)
        failed = [why for why in self.verdict["why"] if why.startswith("failed")]
        return "\n".join([table, *(f"gate {why}" for why in failed or ["passed"])])

    def _range(self, name: str) -> str:
        return f"{self.figures[f'{name}_low']:.1%} to {self.figures[f'{name}_high']:.1%}"


def _short(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
