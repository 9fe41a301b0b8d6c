"""Tell what differs between versions: to a terminal, a pull request, a browser or a script."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from meadow.evaluation.significance import Pair
from meadow.experiments.differences import Against, Differences, Row, photos, words
from meadow.experiments.revision import WORKSPACE, Revision
from meadow.pipeline import atomic
from meadow.reporting import html
from meadow.reporting.html import Picture, Table

SHOWN = 10  # photos that a terminal names, of those mended and of those broken
LISTED = 200  # that a comment lists, likewise: GitHub takes 65,536 characters
PICTURES = 60  # photos that a page shows, likewise
CHOOSING = (
    "To choose between ideas use figures that are cross-validated (cv_) or of the val photos: a"
    " choice by test photos makes the chosen one look better than it is."
)


def compare(names: Sequence[str], page: Path | None, form: str = "terminal") -> None:
    """Print what differs between versions, and write it as a page if asked for.

    Args:
        names: commits, tags, branches, experiments, `workspace`; one alone is compared with the
            workspace, none means HEAD.
        page: where to write the HTML page, or None.
        form: terminal, markdown or json: for whom it is printed.

    Raises:
        MeadowError: a version is unknown.

    """
    if len(names) < 2:
        first = names[0] if names else "HEAD"
        names = ["HEAD" if first == WORKSPACE else first, WORKSPACE]
    found = Differences.between([Revision.find(name) for name in names])
    print(FORMS[form](found))
    if page:
        with atomic.whole(page) as part:
            part.write_text(in_html(found), "utf-8")
        print(f"\n{page} shows the photos.", file=sys.stderr)


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
            parts.append(f"<details><summary>The {photos(count)}</summary>")
            parts += [
                "\n".join([f"{verb}:", "", *(f"- {_code(_line(pair))}" for pair in pairs[:LISTED])])
                for verb, pairs in changed
            ]
            parts.append("</details>")
    for title, rows in (("Parameters", found.parameters), ("Figures", found.figures)):
        parts.append(_table(f"{title} that differ", found.header, rows, "pipe", _entities))
    return "\n\n".join([*parts, *map(_entities, found.notes), CHOOSING])


def in_json(found: Differences) -> str:
    """Return the differences as one JSON object, for scripts."""
    names = [each.name for each in found.revisions]
    content = {
        "versions": {each.name: each.commit for each in found.revisions},
        "parameters": {
            row.name: dict(zip(names, row.values, strict=True)) for row in found.parameters
        },
        "figures": {row.name: dict(zip(names, row.values, strict=True)) for row in found.figures},
        "photos": [_record(against) for against in found.against],
        "notes": found.notes,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _record(against: Against) -> dict[str, Any]:
    names = {"baseline": against.baseline.name, "version": against.revision.name}
    about = {**names, "where": against.where}
    c = against.comparison
    if c is None:
        return {**about, "why": against.why}
    ends = ("difference", "low", "high")
    return {
        **about,
        "compared": len(c.pairs),
        "level": c.level,
        "accuracy": {**dict(zip(ends, c.accuracy, strict=True)), "p_value": c.p_value},
        "log_loss": dict(zip(ends, c.log_loss, strict=True)),
        **{
            verb: [
                {"path": new.path, "label": new.label, "was": old.predicted, "is": new.predicted}
                for old, new in pairs
            ]
            for verb, pairs in (("mended", c.mended), ("broken", c.broken))
        },
    }


def in_html(found: Differences) -> str:
    """Return the differences as a page of its own, with the photos."""
    first, *others = (each.title for each in found.revisions)
    comparisons = [
        {
            "title": f"{against.revision.title}, {against.where}",
            "words": words(against),
            "changes": [
                {
                    "title": f"{verb}: {photos(len(pairs))}"
                    + (f", of which {PICTURES} are shown" if len(pairs) > PICTURES else ""),
                    "pictures": [_picture(against, pair) for pair in pairs[:PICTURES]],
                }
                for verb, pairs in _changes(against)
            ],
        }
        for against in found.against
    ]
    tables = [
        Table(f"{title} that differ", found.header, [[row.name, *row.cells] for row in rows])
        for title, rows in (("Parameters", found.parameters), ("Figures", found.figures))
    ]
    return html.render(
        "comparison.html",
        title=f"{', '.join(others)} against {first}",
        comparisons=comparisons,
        tables=tables,
        notes=[*found.notes, CHOOSING],
    )


FORMS = {"terminal": in_terminal, "markdown": in_markdown, "json": in_json}


def _picture(against: Against, pair: Pair) -> Picture:
    """Return the thumbnail of a photo, and what the two models said of it."""
    old, new = pair
    data = against.revision.photo(new) or against.baseline.photo(old)
    caption = (
        f"{new.label}\nit said {old.predicted} ({old.confidence:.0%})\nnow {new.predicted}"
        f" ({new.confidence:.0%})\n{new.path}"
    )
    return Picture.of(data, new.label, caption)


def _changes(against: Against) -> list[tuple[str, Sequence[Pair]]]:
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


def _printable(text: str) -> str:
    """Quote what would garble a terminal."""
    return text if text.isprintable() else repr(text)


def _entities(text: str) -> str:
    """Write as entities what Markdown or HTML would take for its own."""
    return re.sub(r"[^\w\s.,:;()+%'/-]|_", lambda c: f"&#{ord(c[0])};", " ".join(text.split()))


def _code(text: str) -> str:
    return f"<code>{_entities(text)}</code>"
