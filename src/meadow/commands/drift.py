"""`meadow drift`: whether a service is shown other photos than its model has learned from."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from meadow.drift import events
from meadow.drift.comparison import LEAST, Finding, Share, compare, shares
from meadow.drift.events import Label, Passed
from meadow.drift.tally import Tally
from meadow.errors import MeadowError
from meadow.inference.classifier import FOLDER
from meadow.inference.reference import Reference
from meadow.inference.signals import SIGNALS
from meadow.pipeline import atomic
from meadow.pipeline.intervals import wilson
from meadow.reporting import html
from meadow.reporting.charts import Axis, Chart
from meadow.reporting.html import Table

CLASSES = 10  # whose shares are shown, those that changed most
WHAT = {
    "confidence": "confidence of the answers",
    "distance": "distance to the photos that were learned from",
    "brightness": "brightness",
    "contrast": "contrast",
    "detail": "sharpness, for the contrast and the size of the photo",
    "warmth": "warmth (red less green)",
    "side": "shorter side in pixels (no alarm by itself)",
    "bytes": "bytes of the file (no alarm by themselves)",
    "far": "photos far from all that was learned from",
    "predicted": "predicted classes",
    "together": "all signals but side and bytes together",
}


def drift(sources: Sequence[str], since: str, page: Path | None, *, model: Path = FOLDER) -> bool:
    """Compare events with the reference of the model, print what changed, write it as a page.

    Args:
        sources: see `events.count`; none is the file that MEADOW_EVENTS names.
        since: a time; earlier events do not count. "" takes all.
        page: where to write the page, or None.
        model: its folder.

    Returns:
        Whether something changed that somebody should look at.

    Raises:
        MeadowError: no model, no reference, no events.

    """
    sources = sources or [path for path in [os.environ.get("MEADOW_EVENTS", "")] if path]
    if not sources:
        raise MeadowError(
            "no events are named. Write `meadow drift --events FILE`: the file that MEADOW_EVENTS"
            " of the service names."
        )
    reference = Reference.load(model)
    about = json.loads((model / "model.json").read_text("utf-8"))
    classes, version = about["classes"], about["sha256"]
    tally = Tally(reference, len(classes))
    passed = events.count(sources, tally, classes, version, since and events.utc(since))
    findings = compare(tally, reference)
    lead = lead_of(tally, reference, version, passed, findings)
    estimated = dict(zip(classes, shares(tally, reference), strict=True)) if findings else {}
    lines = [lead, *(f"  {sentence(finding)}" for finding in findings if finding.changed)]
    labels = in_labels(list(passed.labels.values()))
    lines += [f"  {text}" for text in [*in_shares(estimated), *labels]]
    print("\n".join(lines))
    if page:
        with atomic.whole(page) as part:
            part.write_text(in_html(lead, findings, estimated, labels, tally, reference), "utf-8")
        print(f"{page} shows it.")
    return any(finding.alarm for finding in findings)


def lead_of(
    tally: Tally, reference: Reference, version: str, passed: Passed, findings: Sequence[Finding]
) -> str:
    """Return what was compared, and whether something changed, in one paragraph."""
    changed = sum(finding.changed for finding in findings)
    words = [f"{tally.total:,} answers of model {version[:12]}"]
    if tally.times:
        words.append(f" since {tally.times[0]}")
    words.append(f", compared with {len(reference.actual):,} photos of its reference: ")
    if not findings:
        words.append(f"too few, it takes {LEAST}.")
    elif changed:
        words.append(f"{changed} of {len(findings)} tests say that they differ.")
    else:
        words.append(f"none of {len(findings)} tests says that they differ.")
    if passed.of_other_models:
        models = ", ".join(sorted(passed.other_models)[:5])
        words.append(f" {passed.of_other_models:,} events are of other models ({models}).")
    if passed.damaged:
        words.append(
            f" {passed.damaged:,} lines are no events of this version, and were passed over."
        )
    return "".join(words)


def sentence(finding: Finding) -> str:
    """Say what one test found."""
    text = f"{WHAT[finding.name]}: "
    if finding.name in SIGNALS:
        text += f"median {finding.after:.4g} instead of {finding.before:.4g}, "
    elif finding.name == "far":
        text += f"{finding.after:.0%} instead of {finding.before:.0%}, "
    elif finding.name == "predicted":
        text += f"{finding.size:.0%} of the answers moved, "
    text += chance(finding.p)
    return text + (f", since {finding.since}" if finding.since else "")


def chance(p: float) -> str:
    """Write a p-value."""
    return f"p = {p:.2g}" if p >= 1e-6 else "p < 0.000001"


def in_shares(estimated: dict[str, Share]) -> list[str]:
    """Say what share of the photos shows each class, of those that changed most."""
    ranked = sorted(estimated.items(), key=lambda pair: -abs(pair[1].after - pair[1].before))
    texts = []
    for name, share in ranked[:CLASSES]:
        interval = "" if np.isnan(share.low) else f" ({share.low:.0%} to {share.high:.0%})"
        texts.append(
            f"photos of {name}: estimated {share.after:.0%}{interval}, labelled {share.before:.0%}"
        )
    return texts


def in_labels(labels: Sequence[Label]) -> list[str]:
    """Say how many of the answers whose label came back are right: of all, and of a fair sample."""
    texts = []
    for name, chosen in (
        ("labels came back", labels),
        ("of them are of photos drawn at random", [each for each in labels if each.random]),
    ):
        n, correct = len(chosen), sum(label.correct for label in chosen)
        low, high = wilson(correct, n)
        if n:
            text = f"{n:,} {name}: {correct / n:.1%} classified correctly ({low:.1%} to {high:.1%})"
            texts.append(text)
    return texts


def in_html(
    lead: str,
    findings: Sequence[Finding],
    estimated: dict[str, Share],
    labels: Sequence[str],
    tally: Tally,
    reference: Reference,
) -> str:
    """Return the page: what changed in words, each test in a table, each signal as a chart."""
    rows = [
        [
            WHAT[finding.name],
            "yes" if finding.changed else "no",
            chance(finding.p).removeprefix("p = ").removeprefix("p "),
            f"{finding.size:.2f}",
            f"{finding.before:.4g}" if finding.name in SIGNALS else "",
            f"{finding.after:.4g}" if finding.name in SIGNALS else "",
            finding.since,
        ]
        for finding in findings
    ]
    header = ("signal", "changed", "p, corrected", "size", "median before", "median now", "since")
    return html.render(
        "drift.html",
        title="Drift",
        lead=lead,
        sentences=[sentence(finding) for finding in findings if finding.changed],
        shares=in_shares(estimated),
        labels=labels,
        table=Table("The tests", header, rows),
        charts=[
            chart(finding, tally, reference) for finding in findings if finding.name in SIGNALS
        ],
    )


def chart(finding: Finding, tally: Tally, reference: Reference) -> Chart:
    """Draw what share of the photos has at most a value: in the reference, and (dashed) now."""
    edges = tally.edges[finding.name]
    lines = []
    for counts in (
        tally.cells(finding.name, reference.signals[finding.name]),
        tally.counts[finding.name].sum(axis=0),
    ):
        at_most = np.cumsum(counts)[1::2] / counts.sum()
        lines.append(list(zip(edges.tolist(), at_most.tolist(), strict=True)))
    return Chart(
        name=WHAT[finding.name],
        words=f"{sentence(finding)}. Dashed: the answers.",
        x=Axis(finding.name, float(edges[0]), float(edges[-1]), ".4g"),
        y=Axis("share of the photos with at most so much", 0, 1),
        lines=lines,
    )
