"""What differs between versions, in parameters, figures and single photos; nothing is run anew.

All of it is read from what Git and DVC keep. The first version is the baseline.
"""

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from meadow import outputs, pages
from meadow.comparison import Comparison, Pair
from meadow.errors import MeadowError
from meadow.photos import PhotoError, decode
from meadow.revision import WORKSPACE, Revision

SHOWN = 10  # photos that a terminal names, of those mended and of those broken
LISTED = 200  # that a comment lists, likewise: GitHub takes 65,536 characters
PICTURES = 60  # photos that a page shows, likewise
MISSING = "-"
TEST = "on the test photos"
CROSS_VALIDATED = "cross-validated on the train and val photos"
CHOOSING = (
    "To choose between ideas use figures that are cross-validated (cv_) or of the val photos: a"
    " choice by test photos makes the chosen one look better than it is."
)


@dataclass(frozen=True)
class Row:
    """A parameter or figure that differs: a text a revision, and the change where there are two."""

    name: str
    cells: Sequence[str]


@dataclass(frozen=True)
class Against:
    """A revision against the baseline, photo by photo; `why` says why that cannot be, or ""."""

    baseline: Revision
    revision: Revision
    where: str
    comparison: Comparison | None
    why: str


@dataclass(frozen=True)
class Differences:
    """All that differs between revisions, the first of which is the baseline."""

    revisions: Sequence[Revision]
    parameters: Sequence[Row]
    figures: Sequence[Row]
    against: Sequence[Against]

    @classmethod
    def between(cls, revisions: Sequence[Revision]) -> "Differences":
        """Read what Git and DVC keep of them."""
        return cls(
            revisions,
            _rows([each.parameters for each in revisions]),
            _rows([_with_intervals(each.figures) for each in revisions]),
            [
                against
                for each in revisions[1:]
                for against in _photo_by_photo(revisions[0], each, len(revisions) - 1)
            ],
        )

    @property
    def header(self) -> list[str]:
        """The heads of the tables' columns."""
        change = ["change"] * (len(self.revisions) == 2)
        return ["", *(each.title for each in self.revisions), *change]

    @property
    def notes(self) -> list[str]:
        """What to know before one believes the figures."""
        found = [
            f"The figures of {each.name} were made with other values of"
            f" {', '.join(each.outdated)}: `dvc repro` makes them anew."
            for each in self.revisions
            if each.outdated
        ]
        if (others := len(self.revisions) - 1) > 1:
            level = 1 - 0.05 / others
            found.append(
                f"{others} versions are compared with {self.revisions[0].name}: each"
                f" interval is of {level:.1%}, so that all of them hold together with 95 %."
            )
        return found


def compare(names: Sequence[str], page: Path | None, *, markdown: bool) -> None:
    """Print what differs between versions, and write it as a page if asked for.

    Args:
        names: commits, tags, branches, experiments, `workspace`; one alone is compared with the
            workspace, none means HEAD.
        page: where to write the HTML page, or None.
        markdown: print it for a pull request instead of for a terminal.

    Raises:
        MeadowError: a version is unknown.

    """
    if len(names) < 2:
        first = names[0] if names else "HEAD"
        names = ["HEAD" if first == WORKSPACE else first, WORKSPACE]
    found = Differences.between([Revision.find(name) for name in names])
    print(in_markdown(found) if markdown else in_terminal(found))
    if page:
        with outputs.whole(page) as part:
            part.write_text(in_html(found), "utf-8")
        print(f"\n{page} shows the photos.", file=sys.stderr)


def words(against: Against) -> list[str]:
    """Say what a comparison on photos found, in sentences."""
    if against.comparison is None:
        return [against.why]
    c, old, new = against.comparison, against.baseline, against.revision
    n = len(c.pairs)
    said = []
    if c.seen != (n, n):
        said.append(
            f"{old.name} was judged on {_photos(c.seen[0])}, {new.name} on {c.seen[1]}; both on"
            f" {n + c.relabelled}."
        )
    if c.relabelled:
        said.append(f"{c.relabelled} of these have another label now, and are not compared.")
    if not n:
        return [*said, "No photo can be compared."]
    if all(a.predicted == b.predicted and a.p_label == b.p_label for a, b in c.pairs):
        return [*said, f"{new.name} gives the same answers to all {_photos(n)}."]
    said.append(f"Of {_photos(n)} {new.name} mends {len(c.mended)} and breaks {len(c.broken)}.")
    chance = f"no difference that {_photos(n)} could show"
    points, low, high = (_signed(100 * value, 1) for value in c.accuracy)
    p = f"p = {c.p_value:.2g}" if c.p_value >= 0.001 else "p < 0.001"
    more = "higher" if c.accuracy[0] > 0 else "lower"
    verdict = f"surely {more}" if c.differs else chance
    if not c.differs and (c.accuracy[1] > 0 or c.accuracy[2] < 0):
        verdict = f"probably {more}, but so few changes do not prove it"
    said.append(
        f"Accuracy {points} points ({low} to {high}), {p} by McNemar's exact test: {verdict}."
    )
    if not c.differs and c.needed <= n:
        said.append(f"(A model that breaks none would have to mend {c.needed} to show one.)")
    loss, low, high = (_signed(value, 3) for value in c.log_loss)
    verdict = chance
    if c.log_loss[1] > 0:
        verdict = "surely higher, which is worse"
    elif c.log_loss[2] < 0:
        verdict = "surely lower, which is better"
    said.append(f"Log-loss {loss} ({low} to {high}), paired bootstrap: {verdict}.")
    return said


def in_terminal(found: Differences) -> str:
    """Return the differences as plain text."""
    parts = []
    for title, rows in (("Parameters", found.parameters), ("Figures", found.figures)):
        parts.append(_table(f"{title} that differ", found.header, rows, "simple", _printable))
    for against in found.against:
        lines = [f"{against.revision.title} against {against.baseline.title}, {against.where}"]
        lines += [f"  {sentence}" for sentence in words(against)]
        for verb, pairs in _changes(against):
            lines += [f"  {verb}:", *(f"    {_printable(_line(pair))}" for pair in pairs[:SHOWN])]
            if len(pairs) > SHOWN:
                lines.append(f"    and {len(pairs) - SHOWN} more")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, *found.notes, CHOOSING])


def in_markdown(found: Differences) -> str:
    """Return the differences as a comment on a pull request: the photos' names are folded in."""
    names = [_code(each.title) for each in found.revisions]
    parts = [f"### {', '.join(names[1:])} against {names[0]}"]
    for against in found.against:
        said = "\n".join(f"- {_entities(sentence)}" for sentence in words(against))
        parts.append(f"**{_code(against.revision.name)}**, {against.where}\n\n{said}")
        if changed := _changes(against):
            count = sum(len(pairs) for _, pairs in changed)
            parts.append(f"<details><summary>The {_photos(count)}</summary>")
            parts += [
                "\n".join([f"{verb}:", "", *(f"- {_code(_line(pair))}" for pair in pairs[:LISTED])])
                for verb, pairs in changed
            ]
            parts.append("</details>")
    for title, rows in (("Parameters", found.parameters), ("Figures", found.figures)):
        parts.append(_table(f"{title} that differ", found.header, rows, "pipe", _entities))
    return "\n\n".join([*parts, *map(_entities, found.notes), CHOOSING])


def in_html(found: Differences) -> str:
    """Return the differences as a page of its own, with the photos."""
    first, *others = (each.title for each in found.revisions)
    body = []
    for against in found.against:
        body.append(f"<h2>{pages.text(against.revision.title)}, {against.where}</h2>")
        said = words(against)
        lead = next((each for each in said if each.startswith("Of ")), None)
        body += [pages.paragraph(each, "lead" if each == lead else "") for each in said]
        for verb, pairs in _changes(against):
            more = f", of which {PICTURES} are shown" if len(pairs) > PICTURES else ""
            body.append(f"<h3>{verb}: {_photos(len(pairs))}{more}</h3>")
            body.append(pages.photos([_picture(against, pair) for pair in pairs[:PICTURES]]))
    for title, rows in (("Parameters", found.parameters), ("Figures", found.figures)):
        body.append(f"<h2>{title} that differ</h2>")
        cells = [[row.name, *row.cells] for row in rows]
        name = f"{title} that differ"
        body.append(pages.table(name, found.header, cells) if rows else pages.paragraph("None."))
    body += [pages.paragraph(note, "soft") for note in [*found.notes, CHOOSING]]
    return pages.page(f"{', '.join(others)} against {first}", body)


def _picture(against: Against, pair: Pair) -> tuple[str, str]:
    """Return the thumbnail of a photo, and what the two models said of it."""
    old, new = pair
    data = against.revision.photo(new) or against.baseline.photo(old)
    try:
        image = decode(data, at_least=2 * pages.SIDE) if data else None
    except PhotoError:  # it was decoded when it was tested, so this is another Pillow
        image = None
    said = (
        f"{new.label}\nit said {old.predicted} ({old.confidence:.0%})\nnow {new.predicted}"
        f" ({new.confidence:.0%})\n{new.path}"
    )
    return pages.thumbnail(image, f"photo labelled {new.label}"), said


def _photo_by_photo(baseline: Revision, revision: Revision, among: int) -> list[Against]:
    """Compare on the test photos and, where both were cross-validated, on the others."""
    found = []
    for where, answers in ((TEST, "answers"), (CROSS_VALIDATED, "cross_validated")):
        try:
            old, new = getattr(baseline, answers), getattr(revision, answers)
            if old and new:
                comparison = Comparison.of(old, new, among)
                found.append(Against(baseline, revision, where, comparison, ""))
        except MeadowError as error:
            why = f"Photos are not compared: {error}"
            found.append(Against(baseline, revision, where, None, why))
            break  # the second table lies beside the first
    return found


def _changes(against: Against) -> list[tuple[str, list[Pair]]]:
    if against.comparison is None:
        return []
    both = [("Mended", against.comparison.mended), ("Broken", against.comparison.broken)]
    return [(verb, pairs) for verb, pairs in both if pairs]


def _line(pair: Pair) -> str:
    old, new = pair
    return (
        f"{new.path}: {new.label}; it said {old.predicted} ({old.confidence:.0%}),"
        f" now {new.predicted} ({new.confidence:.0%})"
    )


def _rows(versions: Sequence[dict[str, Any]]) -> list[Row]:
    names = dict.fromkeys(name for version in versions for name in version)
    rows = []
    for name in names:
        values = [version.get(name, MISSING) for version in versions]
        if any(value != values[0] for value in values):
            change = [_change(*values)] if len(values) == 2 else []
            rows.append(Row(name, [*map(_shown, values), *change]))
    return rows


def _with_intervals(figures: dict[str, Any]) -> dict[str, Any]:
    """Join x, x_low and x_high to one figure."""
    return {
        name: (value, figures[f"{name}_low"], figures[f"{name}_high"])
        if f"{name}_low" in figures
        else value
        for name, value in figures.items()
        if not (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in figures)
    }


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        figure, low, high = (f"{each:.3f}" for each in value)
        return f"{figure} ({low} to {high})"
    if isinstance(value, float):
        return f"{value:.4f}" if 0.001 <= abs(value) < 1000 else f"{value:g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _change(old: Any, new: Any) -> str:
    old, new = (value[0] if isinstance(value, tuple) else value for value in (old, new))
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (old, new))
    return f"{new - old:+.4g}" if numbers else ""


def _signed(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:+.{digits}f}"  # + 0.0: no minus before a zero


def _table(
    title: str, header: Sequence[str], rows: Sequence[Row], form: str, safe: Callable[[str], str]
) -> str:
    if not rows:
        return f"{title}: none"
    cells = [[safe(row.name), *map(safe, row.cells)] for row in rows]
    align = ["left", *["right"] * (len(header) - 1)]
    table = tabulate(
        cells, [safe(head) for head in header], form, colalign=align, disable_numparse=True
    )
    return f"{title}\n\n{table}"


def _photos(n: int) -> str:
    return "1 photo" if n == 1 else f"{n} photos"


def _printable(text: str) -> str:
    """Quote what would garble a terminal."""
    return text if text.isprintable() else repr(text)


def _entities(text: str) -> str:
    """Write as entities what Markdown or HTML would take for its own."""
    return re.sub(r"[^\w\s.,:;()+%'/-]|_", lambda c: f"&#{ord(c[0])};", " ".join(text.split()))


def _code(text: str) -> str:
    return f"<code>{_entities(text)}</code>"
