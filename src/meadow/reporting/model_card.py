"""The model card: what a classifier is for, how good it is, and where it ends, to go with it.

Its sections are those of Mitchell et al. (2019), Model Cards for Model Reporting;
`templates/model-card.md` has its words.
"""

from markupsafe import Markup
from tabulate import tabulate

from meadow.reporting import html
from meadow.reporting.findings import Findings
from meadow.reporting.html import Table


def card(findings: Findings) -> str:
    """Return the card as Markdown: the same findings, the same bytes."""
    return MARKDOWN.get_template("model-card.md").render(f=findings, table=_table)


def _table(table: Table) -> Markup:
    rows = [[_safe(cell) for cell in row] for row in table.rows]
    align = ["left", *["right"] * (len(table.header) - 1)]
    text = tabulate(rows, table.header, "pipe", colalign=align, disable_numparse=True)
    return Markup(text)  # noqa: S704 # the cells are escaped above


def _safe(value: object) -> object:
    """Escape what Markdown or HTML would take for its own: a class may have any name."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    kept = "".join(c if c.isprintable() else "\ufffd" for c in value)
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|&~" else c for c in kept)


MARKDOWN = html.ENVIRONMENT.overlay(autoescape=False, finalize=_safe)
