"""The report: one page on the data, the model, its mistakes and its doubts, for people.

It is made of what evaluate has at hand and of what prepare and train have left: nothing of it is
measured again.
"""

import csv
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from meadow.evaluation import label_issues, metrics
from meadow.pipeline import manifest
from meadow.pipeline.image import decode
from meadow.reporting import html
from meadow.reporting.findings import LONGEST, Findings, Judged, Table
from meadow.reporting.html import Axis

CURVES = Path("metrics/train/plots/metrics")
PICTURES = 24  # photos of each kind
CLASSES = 12  # that a confusion matrix shows; of more, the pairs that are confused most
POINTS = 200  # of a curve


def write(folder: Path, found: Findings) -> None:
    """Write report.html: the same findings, the same bytes."""
    parts = [_headline, _gate, _data, _curves, _classes, _mistakes, _doubts, _labels, _origin]
    body = [line for part in parts for line in part(found)]
    (folder / "report.html").write_text(html.page("Report of a classifier", body), "utf-8")


def _headline(found: Findings) -> list[str]:
    said = (
        f"It tells {found.classes} apart. The {found.figures['n_test']} test photos, which nothing"
        " but this report has seen, went through the very network that is served."
    )
    if found.out_of_fold:
        said += (
            f" Cross-validated figures are of the other {found.figures['cv_n']} photos, each judged"
            " by a head that did not learn from it."
        )
    return [
        html.paragraph(found.headline, "lead"),
        html.paragraph(said),
        _table(found.measured),
    ]


def _gate(found: Findings) -> list[str]:
    word = "It may go out" if found.verdict["passed"] else "It may not go out"
    reasons = "".join(f"<li>{html.text(why)}</li>" for why in found.verdict["why"])
    return [f"<h2>{word}</h2>", f"<ul>{reasons}</ul>"]


def _data(found: Findings) -> list[str]:
    rows = found.ready.rows
    sides = sorted(min(row.width, row.height) for row in rows)
    groups = Counter(row.group for row in rows)
    alike = sum(n for n in groups.values() if n > 1)
    said = (
        f"{len(rows):,} photos. Their shorter sides are {sides[0]} to {sides[-1]} pixels, half of"
        f" them at least {sides[len(sides) // 2]}. {alike or 'None'} of them look like another one;"
        " such photos lie in the same split."
    )
    with (manifest.FOLDER / "left_out.csv").open(encoding="utf-8", newline="") as file:
        left_out = list(csv.DictReader(file))
    body = ["<h2>The photos</h2>", html.paragraph(said)]
    if len(found.ready.classes) > LONGEST:
        body.append(html.paragraph(f"{found.photos.name}:", "soft"))
    body.append(_table(found.photos))
    if not left_out:
        return [*body, html.paragraph("None was left out.")]
    header = list(left_out[0])
    cells = [list(each.values()) for each in left_out[:LONGEST]]
    more = f"; the first {LONGEST}" if len(left_out) > LONGEST else ""
    body += [
        f"<h3>Left out: {len(left_out)}{more}</h3>",
        html.table("Files left out", header, cells, "words"),
    ]
    return body


def _curves(found: Findings) -> list[str]:
    test, charts = found.test, _learning()
    truth = np.eye(len(found.model.classes), dtype=bool)[test.targets]
    columns = slice(0, 1) if len(found.model.classes) == 2 else slice(None)
    roc = metrics.roc(test.probabilities[:, columns].ravel(), truth[:, columns].ravel())
    area = f"The area under it is {found.figures['auroc']:.3f}; a coin's is 0.5."
    charts.append(
        html.chart(
            "ROC", area,
            Axis("false alarms", 0, 1), Axis("found", 0, 1),
            [[(each["fpr"], each["tpr"]) for each in _thinned(roc)]], diagonal=True,
        )
    )  # fmt: skip
    bins = metrics.reliability(test.probabilities, test.targets)
    charts.append(
        html.chart(
            "Reliability",
            "Photos in groups by how sure the model was; on the dotted line it is as often right as"
            " it says. The bars are 95 % intervals.",
            Axis("confidence", 0, 1), Axis("right", 0, 1), [],
            [
                (each["confidence"], each["accuracy"], each["accuracy_low"], each["accuracy_high"])
                for each in bins
            ],
            diagonal=True,
        )
    )  # fmt: skip
    kept = metrics.abstention(test.probabilities, test.targets)
    least = min(each["accuracy_low"] for each in kept)
    half = next(each for each in kept if each["answered"] >= 0.5)
    charts.append(
        html.chart(
            "If only the surest are answered",
            f"Of the surest half {half['accuracy']:.1%} are right. Dashed: the lower end of the"
            " 95 % interval.",
            Axis("photos answered", 0, 1), Axis("right", math.floor(least * 20) / 20, 1),
            [
                [(each["answered"], each[key]) for each in kept]
                for key in ("accuracy", "accuracy_low")
            ],
        )
    )  # fmt: skip
    return [
        "<h2>How it learned, and how sure it is</h2>",
        f'<div class="charts">{"".join(charts)}</div>',
    ]


def _learning() -> list[str]:
    """Return a chart for each kind of figure that train has logged: train and val in one."""
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for file in sorted(CURVES.rglob("*.tsv")):
        with file.open(encoding="utf-8", newline="") as table:
            records = list(csv.DictReader(table, delimiter="\t"))
        points = [(float(each["step"]), float(each[file.stem])) for each in records]
        series.setdefault(file.stem, {})[file.parent.name] = points
    charts = []
    for name, found in sorted(series.items()):
        both = sorted(found, key=lambda part: part == "train")  # train is the dashed one
        heights = [y for points in found.values() for _, y in points]
        steps = max(x for points in found.values() for x, _ in points)
        if "cv" in found:
            words = "Out of fold, for each penalty that was tried, the strongest first."
        else:
            words = "On the val photos" + (
                ", dashed on the train photos." if "train" in found else "."
            )
        title = name.replace("_", "-")
        low, high = (0.0, max(heights)) if title == "log-loss" else (min(heights), 1.0)
        axis = Axis(title, low, high, ".2f")
        lines = [_thinned(found[part]) for part in both]
        charts.append(
            html.chart(f"Learning: {title}", words, Axis("step", 0, steps, ".0f"), axis, lines)
        )
    return charts


def _classes(found: Findings) -> list[str]:
    return [
        f"<h2>{found.per_class.name}</h2>",
        _table(found.per_class),
        "<h3>What is taken for what</h3>",
        _confusion(found),
    ]


def _confusion(found: Findings) -> str:
    test, names = found.test, found.model.classes
    count = Counter(zip(test.targets.tolist(), test.predicted.tolist(), strict=True))
    if len(names) <= CLASSES:
        rows = [
            [names[i], *(f"{count[i, j]}" for j in range(len(names)))] for i in range(len(names))
        ]
        return html.table("Confusion", ["is \\ said", *names], rows)
    pairs = sorted((-n, i, j) for (i, j), n in count.items() if i != j)[:LONGEST]
    rows = [[names[i], names[j], f"{-n}"] for n, i, j in pairs]
    header = ["is", "was said", "photos"]
    return html.table("Pairs of classes that are confused most", header, rows, "words")


def _mistakes(found: Findings) -> list[str]:
    test = found.test
    wrong = np.flatnonzero(test.predicted != test.targets)
    order = sorted(wrong.tolist(), key=lambda i: (-test.confidence[i], test.rows[i].path))
    title = f"<h2>Mistakes: {len(wrong)} of {len(test.rows)} test photos</h2>"
    said = "The surest first." if len(wrong) else "None."
    if len(wrong) > PICTURES:
        said = f"The {PICTURES} surest."
    return [title, html.paragraph(said), *_gallery(found, test, order)]


def _doubts(found: Findings) -> list[str]:
    test = found.test
    right = np.flatnonzero(test.predicted == test.targets)
    order = sorted(right.tolist(), key=lambda i: (test.confidence[i], test.rows[i].path))
    outside = sum(not each.in_distribution for each in found.answers)
    several = sum(int(each.prediction_set.sum()) != 1 for each in found.answers)
    said = (
        f"Of {several} test photos the model is not sure: the set of classes that it cannot rule"
        f" out does not have just one. {outside} are unlike what it has learned from."
    )
    return [
        "<h2>Right, but least sure</h2>",
        html.paragraph(said),
        *_gallery(found, test, order[: PICTURES // 2]),
    ]


def _labels(found: Findings) -> list[str]:
    if found.out_of_fold is None:
        return []
    judged = found.out_of_fold
    wrong = np.flatnonzero(label_issues.issues(judged.probabilities, judged.targets))
    fit = label_issues.quality(judged.probabilities, judged.targets)
    order = sorted(wrong.tolist(), key=lambda i: (fit[i].round(8), judged.rows[i].path))
    said = (
        "Of the train and val photos, by heads that did not see them. reports/review.csv lists all;"
        " `meadow review` writes down what you decide."
    )
    return [
        f"<h2>Labels that may be wrong: {len(wrong)} of {len(judged.rows)}</h2>",
        html.paragraph(said),
        *_gallery(found, judged, order),
    ]


def _gallery(found: Findings, judged: Judged, order: Sequence[int]) -> list[str]:
    if not order:
        return []
    shown = []
    for i in order[:PICTURES]:
        row, said = judged.rows[i], found.model.classes[int(judged.predicted[i])]
        image = decode(found.read(row), at_least=2 * html.SIDE)
        words = "" if said == row.label else f"labelled {row.label}, "
        caption = f"{words}said {said} ({judged.confidence[i]:.0%})\n{row.path}"
        shown.append((html.thumbnail(image, f"photo labelled {row.label}"), caption))
    return [html.photos(shown)]


def _origin(found: Findings) -> list[str]:
    return [f"<h2>{found.origin.name}</h2>", _table(found.origin, "words")]


def _table(of: Table, kind: str = "numbers") -> str:
    return html.table(of.name, of.header, of.rows, kind)


def _thinned(points: Sequence[Any]) -> list[Any]:
    """Return at most `POINTS` of the points, the ends among them."""
    if len(points) <= POINTS:
        return list(points)
    return [points[i] for i in np.linspace(0, len(points) - 1, POINTS).round().astype(int)]
