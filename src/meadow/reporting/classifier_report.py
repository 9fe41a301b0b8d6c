"""The report: one page on the data, the model, its mistakes and its uncertainty, for people."""

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from meadow.evaluation.predictions import Prediction
from meadow.pipeline import manifest, places
from meadow.pipeline.places import Place
from meadow.reporting import html
from meadow.reporting.charts import Axis, Chart
from meadow.reporting.contact_sheet import TILE, contact_sheet
from meadow.reporting.findings import LONGEST, Findings, records
from meadow.reporting.html import Picture, Table

CURVES = Path("metrics/train/plots/metrics")
PLOTS = Path("metrics/plots")
PICTURES = 24  # photos of each kind
TILES = 60  # misclassified photos on the contact sheet
CLASSES = 12  # that a confusion matrix shows; of more, the pairs that are confused most


def page(findings: Findings, photos: Place) -> str:
    """Return the report as HTML.

    Args:
        findings: what it tells.
        photos: where they lie.

    Raises:
        MeadowError: a photo is not the one that was measured.

    """
    correct = [answer for answer in findings.test if answer.correct]
    least_sure = sorted(correct, key=lambda answer: (answer.confidence, answer.path))
    return html.render(
        "classifier_report.html",
        title="Report of a classifier",
        findings=findings,
        sides=sorted(min(row.width, row.height) for row in findings.ready.rows),
        alike=sum(n for n in Counter(row.group for row in findings.ready.rows).values() if n > 1),
        left_out=_left_out(),
        charts=[*_learning(), *_charts(findings)],
        confusion=_confusion(findings),
        shown=PICTURES,
        mistakes=_pictures(findings.mistakes[:PICTURES], photos),
        least_sure=_pictures(least_sure[: PICTURES // 2], photos),
        unsure=sum(answer.set_size != 1 for answer in findings.test),
        outside=sum(not answer.in_distribution for answer in findings.test),
        doubtful=_pictures(findings.out_of_fold[:PICTURES], photos),
        issues=sum(answer.issue for answer in findings.out_of_fold),
    )


def write_mistakes(file: Path, findings: Findings, photos: Place) -> None:
    """Draw the misclassified photos side by side as a PNG, the most confident answers first."""
    tiles = [
        (
            html.thumbnail(places.read_as(photos, answer.path, answer.sha256), TILE - 8),
            f"{answer.label}, not\n{answer.predicted} ({answer.confidence:.0%})",
        )
        for answer in findings.mistakes[:TILES]
    ]
    title = f"{len(findings.mistakes)} of {len(findings.test)} test photos are misclassified"
    if len(findings.mistakes) > TILES:
        title += f"; the {TILES} most confident"
    contact_sheet(tiles, title).save(file, "PNG")


def _pictures(answers: Iterable[Prediction], photos: Place) -> list[Picture]:
    pictures = []
    for answer in answers:
        wrong = "" if answer.correct else f"labelled {answer.label}, "
        caption = f"{wrong}predicted {answer.predicted} ({answer.confidence:.0%})\n{answer.path}"
        photo = places.read_as(photos, answer.path, answer.sha256)
        pictures.append(Picture.of(photo, answer.label, caption))
    return pictures


def _left_out() -> Table | None:
    lines = records(manifest.FOLDER / "left_out.csv")
    if not lines:
        return None
    more = f"; the first {LONGEST}" if len(lines) > LONGEST else ""
    rows = [list(line.values()) for line in lines[:LONGEST]]
    return Table(f"Left out: {len(lines)}{more}", list(lines[0]), rows)


def _confusion(findings: Findings) -> Table:
    names = findings.ready.classes
    count = Counter((answer.label, answer.predicted) for answer in findings.test)
    if len(names) <= CLASSES:
        rows = [[name, *(f"{count[name, other]}" for other in names)] for name in names]
        return Table("Confusion", ["label \\ predicted", *names], rows)
    pairs = sorted((-n, a, b) for (a, b), n in count.items() if a != b)[:LONGEST]
    rows = [[label, predicted, f"{-n}"] for n, label, predicted in pairs]
    return Table("Pairs of classes confused most", ["label", "predicted", "photos"], rows)


def _charts(findings: Findings) -> list[Chart]:
    """Return the charts of what evaluate measured."""
    roc, bins, answered = (
        [{key: float(value) for key, value in line.items()} for line in records(PLOTS / file)]
        for file in ("roc.csv", "reliability.csv", "abstention.csv")
    )
    least = min(point["accuracy_low"] for point in answered)
    half = next(point for point in answered if point["answered"] >= 0.5)
    return [
        Chart(
            "ROC",
            f"The area under it is {findings.figures['auroc']:.3f}; a coin's is 0.5.",
            Axis("false positive rate", 0, 1),
            Axis("true positive rate", 0, 1),
            [[(point["fpr"], point["tpr"]) for point in roc]],
            diagonal=True,
        ),
        Chart(
            "Reliability",
            "Photos in groups by the confidence of the answer; on the dotted line it is as often"
            " correct as it says. The bars are 95 % intervals.",
            Axis("confidence", 0, 1),
            Axis("accuracy", 0, 1),
            ranges=[
                (b["confidence"], b["accuracy"], b["accuracy_low"], b["accuracy_high"])
                for b in bins
            ],
            diagonal=True,
        ),
        Chart(
            "If only the most confident are answered",
            f"Of the most confident half {half['accuracy']:.1%} are correct. Dashed: the lower end"
            " of the 95 % interval.",
            Axis("photos answered", 0, 1),
            Axis("accuracy", math.floor(least * 20) / 20, 1),
            [[(p["answered"], p[key]) for p in answered] for key in ("accuracy", "accuracy_low")],
        ),
    ]


def _learning() -> list[Chart]:
    """Return a chart for each figure that train has logged: train and val in one."""
    series: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for file in sorted(CURVES.rglob("*.tsv")):
        points = [(float(line["step"]), float(line[file.stem])) for line in records(file, "\t")]
        series.setdefault(file.stem, {})[file.parent.name] = points
    charts = []
    for name, parts in sorted(series.items()):
        heights = [y for points in parts.values() for _, y in points]
        steps = max(x for points in parts.values() for x, _ in points)
        if "cv" in parts:
            words = "Out of fold, for each penalty that was tried, the strongest first."
        else:
            dashed = ", dashed on the train photos" if "train" in parts else ""
            words = f"On the val photos{dashed}."
        title = name.replace("_", "-")
        low, high = (0.0, max(heights)) if title == "log-loss" else (min(heights), 1.0)
        lines = [parts[part] for part in sorted(parts, key=lambda part: part == "train")]
        axes = Axis("step", 0, steps, ".0f"), Axis(title, low, high, ".2f")
        charts.append(Chart(f"Learning: {title}", words, *axes, lines))
    return charts
