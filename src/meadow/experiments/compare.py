"""Tell what differs between versions: to a terminal, a pull request, a browser or a script."""

import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from meadow.errors import MeadowError
from meadow.evaluation.significance import Pair
from meadow.experiments.agreement import agreement
from meadow.experiments.differences import (
    Difference,
    Differences,
    PhotoComparison,
    photos,
    sentences,
)
from meadow.experiments.revision import WORKSPACE, Revision
from meadow.pipeline import atomic
from meadow.reporting import html
from meadow.reporting.html import Picture, Table

PHOTOS_IN_TERMINAL = 10  # named, of those mended and of those broken
PHOTOS_IN_COMMENT = 200  # likewise: GitHub takes 65,536 characters
PHOTOS_ON_PAGE = 60  # shown, likewise
CHOOSING = (
    "To choose between ideas use figures that are cross-validated (cv_) or of the val photos: a"
    " choice by test photos makes the chosen one look better than it is."
)


def compare(
    names: Sequence[str],
    page: Path | None,
    form: str = "terminal",
    events: Sequence[str] | None = None,
) -> None:
    """Print what differs between versions, and write it as a page if asked for.

    Args:
        names: commits, tags, branches, experiments, `workspace`; one alone is compared with the
            workspace, none means HEAD.
        page: where to write the HTML page, or None.
        form: terminal, markdown or json: for whom it is printed.
        events: instead of versions: see `agreement.agreement`.

    Raises:
        MeadowError: a version is unknown, or events cannot be compared.

    """
    if events:
        if names or page or form == "markdown":
            raise MeadowError("--events goes with --json alone: no versions, no page, no comment.")
        agreement(events, as_json=form == "json")
        return
    if len(names) < 2:
        first = names[0] if names else "HEAD"
        names = ["HEAD" if first == WORKSPACE else first, WORKSPACE]
    differences = Differences.between([Revision.find(name) for name in names])
    print(FORMS[form](differences))
    if page:
        with atomic.whole(page) as part:
            part.write_text(in_html(differences), "utf-8")
        print(f"\n{page} shows the photos.", file=sys.stderr)


def in_terminal(differences: Differences) -> str:
    """Return the differences as plain text."""
    header = differences.header
    parts = [
        _table(title, header, rows, "simple", _printable) for title, rows in differences.tables
    ]
    for result in differences.on_photos:
        lines = [f"{result.version.title} against {result.baseline.title}, {result.where}"]
        lines += [f"  {sentence}" for sentence in sentences(result)]
        for verb, pairs in result.changes:
            shown = pairs[:PHOTOS_IN_TERMINAL]
            lines += [f"  {verb}:", *(f"    {_printable(_line(pair))}" for pair in shown)]
            if len(pairs) > len(shown):
                lines.append(f"    and {len(pairs) - len(shown)} more")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, *differences.notes, CHOOSING])


def in_markdown(differences: Differences) -> str:
    """Return the differences as a comment on a pull request: the photos' names are folded in."""
    baseline, *others = (_code(version.title) for version in differences.versions)
    parts = [f"### {', '.join(others)} against {baseline}"]
    for result in differences.on_photos:
        items = "\n".join(f"- {_entities(sentence)}" for sentence in sentences(result))
        parts.append(f"**{_code(result.version.name)}**, {result.where}\n\n{items}")
        if result.changes:
            count = sum(len(pairs) for _, pairs in result.changes)
            parts.append(f"<details><summary>The {photos(count)}</summary>")
            for verb, pairs in result.changes:
                lines = [f"- {_code(_line(pair))}" for pair in pairs[:PHOTOS_IN_COMMENT]]
                parts.append("\n".join([f"{verb}:", "", *lines]))
            parts.append("</details>")
    header = differences.header
    parts += [_table(title, header, rows, "pipe", _entities) for title, rows in differences.tables]
    return "\n\n".join([*parts, *map(_entities, differences.notes), CHOOSING])


def in_json(differences: Differences) -> str:
    """Return the differences as one JSON object, for scripts."""
    names = [version.name for version in differences.versions]

    def by_version(rows: Sequence[Difference]) -> dict[str, dict[str, Any]]:
        return {row.name: dict(zip(names, row.values, strict=True)) for row in rows}

    content = {
        "versions": {version.name: version.commit for version in differences.versions},
        "parameters": by_version(differences.parameters),
        "figures": by_version(differences.figures),
        "photos": [_record(on_photos) for on_photos in differences.on_photos],
        "notes": differences.notes,
    }
    return json.dumps(content, indent=2, ensure_ascii=False)


def _record(on_photos: PhotoComparison) -> dict[str, Any]:
    names = {"baseline": on_photos.baseline.name, "version": on_photos.version.name}
    about = {**names, "where": on_photos.where}
    c = on_photos.comparison
    if c is None:
        return {**about, "why": on_photos.problem}
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


def in_html(differences: Differences) -> str:
    """Return the differences as a page of its own, with the photos."""
    baseline, *others = (version.title for version in differences.versions)
    comparisons = [
        {
            "title": f"{result.version.title}, {result.where}",
            "words": sentences(result),
            "changes": [
                {
                    "title": f"{verb}: {photos(len(pairs))}"
                    + (f", of which {PHOTOS_ON_PAGE} are shown" * (len(pairs) > PHOTOS_ON_PAGE)),
                    "pictures": [_picture(result, pair) for pair in pairs[:PHOTOS_ON_PAGE]],
                }
                for verb, pairs in result.changes
            ],
        }
        for result in differences.on_photos
    ]
    return html.render(
        "comparison.html",
        title=f"{', '.join(others)} against {baseline}",
        comparisons=comparisons,
        tables=[
            Table(title, differences.header, [[row.name, *row.cells] for row in rows])
            for title, rows in differences.tables
        ],
        notes=[*differences.notes, CHOOSING],
    )


FORMS = {"terminal": in_terminal, "markdown": in_markdown, "json": in_json}


def _picture(on_photos: PhotoComparison, pair: Pair) -> Picture:
    """Return the thumbnail of a photo, and what the two models said of it."""
    old, new = pair
    data = on_photos.version.photo(new) or on_photos.baseline.photo(old)
    caption = (
        f"{new.label}\nit said {old.predicted} ({old.confidence:.0%})\nnow {new.predicted}"
        f" ({new.confidence:.0%})\n{new.path}"
    )
    return Picture.of(data, new.label, caption)


def _line(pair: Pair) -> str:
    old, new = pair
    return (
        f"{new.path}: {new.label}; it said {old.predicted} ({old.confidence:.0%}),"
        f" now {new.predicted} ({new.confidence:.0%})"
    )


def _table(
    title: str,
    header: Sequence[str],
    rows: Sequence[Difference],
    form: str,
    safe: Callable[[str], str],
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
