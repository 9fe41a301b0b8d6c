"""`meadow compare --events`: what a shadow answered, beside what clients were sent."""

import heapq
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from meadow.drift import events
from meadow.errors import MeadowError
from meadow.evaluation import significance
from meadow.pipeline.intervals import wilson

MOST = 1000  # photos with two labels that are named, those of which both models are surest
IN_TERMINAL = 10  # of them
LEVEL = 0.95


@dataclass
class Agreement:
    """Two models on the same photos.

    Attributes:
        sent, shadow: their versions; clients got the answers of the first.
        labels: how many photos got which two labels.
        first, last: times of the events.
        differing: of photos with two labels, how sure both are together, and the event; a heap.
        correct: of photos with feedback, how many each of both classified correctly.

    """

    sent: str
    shadow: str
    labels: Counter[tuple[str, str]] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    differing: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)
    correct: Counter[tuple[bool, bool]] = field(default_factory=Counter)

    def add(self, event: dict[str, Any], actual: str | None) -> None:
        """Count a photo, whose label by feedback is `actual`, if there is any."""
        labels = str(event["sent"]["label"]), str(event["label"])
        sure = float(event["sent"]["confidence"]) + max(event["probabilities"])
        self.last = str(event["time"])
        self.first = self.first or self.last
        self.labels[labels] += 1
        if actual is not None:
            self.correct[labels[0] == actual, labels[1] == actual] += 1
        if labels[0] != labels[1]:
            heapq.heappush(self.differing, (sure, -self.photos, event))
            if len(self.differing) > MOST:
                heapq.heappop(self.differing)

    @property
    def photos(self) -> int:
        """How many both answered."""
        return self.labels.total()

    @property
    def differences(self) -> list[dict[str, Any]]:
        """The photos with two labels, those first of which both models are surest."""
        return [
            {
                "request_id": event["request_id"],
                "photo": event["photo"],
                "time": event["time"],
                "sent": event["sent"]["label"],
                "sent_confidence": event["sent"]["confidence"],
                "shadow": event["label"],
                "shadow_confidence": max(event["probabilities"]),
            }
            for _, _, event in sorted(self.differing, reverse=True)
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """How many of all photos, and of those of each label sent, got the same label.

        `sent` is None for all; `else` is the most frequent other label of the shadow, or None.
        """
        rows = []
        for name in [None, *sorted({sent for sent, _ in self.labels})]:
            others: Counter[str | None] = Counter()
            for (sent, shadow), count in self.labels.items():
                if name in (None, sent):
                    others[None if sent == shadow else shadow] += count
            photos, agreed = others.total(), others.pop(None, 0)
            low, high = wilson(agreed, photos)
            rival = max(others, key=others.__getitem__, default=None)
            rows.append(
                {"sent": name, "photos": photos, "agreed": agreed, "share": agreed / photos,
                 "low": low, "high": high, "else": rival}
            )  # fmt: skip
        return rows

    @property
    def mended(self) -> int:
        """Photos with feedback that the shadow alone classified correctly."""
        return self.correct[False, True]

    @property
    def broken(self) -> int:
        """Photos with feedback that the sent answer alone classified correctly."""
        return self.correct[True, False]

    def in_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        n = self.correct.total()
        content: dict[str, Any] = {
            name: getattr(self, name) for name in ("sent", "shadow", "photos", "first", "last")
        }
        content |= {"agreement": self.rows, "labelled": n}
        if n:
            low, high = significance.paired_interval(self.mended, self.broken, n, LEVEL)
            content |= {
                "mended": self.mended,
                "broken": self.broken,
                "accuracy": {
                    "difference": (self.mended - self.broken) / n,
                    "low": low,
                    "high": high,
                    "p_value": significance.mcnemar(self.mended, self.broken),
                },
            }
        return {**content, "differences": self.differences}

    def in_terminal(self) -> str:
        """Return it in words and as a table."""
        record = self.in_json()
        parts = [
            f"{self.photos:,} photos since {self.first}: {self.sent} was sent to clients,"
            f" {self.shadow} answered beside it."
        ]
        cells = [
            [
                "all" if row["sent"] is None else _printable(row["sent"]),
                f"{row['photos']:,}",
                f"{row['share']:.1%}",
                f"{row['low']:.1%} to {row['high']:.1%}",
                _printable(row["else"] or ""),
            ]
            for row in record["agreement"]
        ]
        header = ["sent", "photos", "same label", "95 %", "else most often"]
        align = ["left", "right", "right", "right", "left"]
        parts.append(tabulate(cells, header, "simple", colalign=align, disable_numparse=True))
        if differing := self.photos - record["agreement"][0]["agreed"]:
            shown = record["differences"][:IN_TERMINAL]
            lines = [f"{differing:,} photos got two labels. Where both models are surest:"]
            lines += [
                f"  {_printable(one['request_id'])}: {_printable(one['sent'])}"
                f" ({one['sent_confidence']:.0%}), shadow {_printable(one['shadow'])}"
                f" ({one['shadow_confidence']:.0%})"
                for one in shown
            ]
            parts.append("\n".join(lines))
        if labelled := record["labelled"]:
            gain = record["accuracy"]
            points, low, high = (f"{100 * gain[key]:+.1f}" for key in ("difference", "low", "high"))
            parts.append(
                f"Of {labelled:,} photos with feedback the shadow mends {self.mended} and breaks"
                f" {self.broken}. Accuracy {points} points ({low} to {high}),"
                f" p = {gain['p_value']:.2g} by McNemar's exact test."
            )
        else:
            parts.append("No photo has feedback: which model is right is not known.")
        return "\n\n".join(parts)


def agreement(sources: Sequence[str], *, as_json: bool = False) -> None:
    """Print how far the answers of a shadow agree with those that were sent.

    Args:
        sources: see `events.count`; they are read twice.
        as_json: for scripts, with up to `MOST` differing photos of each two models.

    Raises:
        MeadowError: a source cannot be read, or has no answer of a shadow.

    """
    compared = read(sources)
    if not compared:
        raise MeadowError(
            f"{', '.join(sources)}: no answer of a shadow. Name the events of a service that ran"
            " with MEADOW_SHADOW."
        )
    if as_json:
        print(json.dumps([each.in_json() for each in compared], indent=2, ensure_ascii=False))
    else:
        print("\n\n".join(each.in_terminal() for each in compared))


def read(sources: Sequence[str]) -> list[Agreement]:
    """Read events, in bounded memory but for the labels of feedback."""
    actual = {
        (line.get("request_id"), line.get("photo")): str(line.get("label"))
        for line in events.of_kind("feedback", sources)
    }
    compared: dict[tuple[str, str], Agreement] = {}
    for event in events.of_kind("shadow", sources):
        with suppress(KeyError, TypeError, ValueError):
            models = str(event["sent"]["model"]), str(event["model"])
            each = compared.get(models) or Agreement(*models)
            each.add(event, actual.get((event["request_id"], event.get("photo"))))
            compared[models] = each
    return list(compared.values())


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)
