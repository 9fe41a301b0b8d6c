"""Pages of HTML that are one file: no script, nothing from elsewhere, the same bytes every time."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

SIDE = 176  # px, longest side of a thumbnail
QUALITY = 80
CSS = """
:root { color-scheme: light dark; --ink: #1c211d; --soft: #566058; --line: #d5dad2;
  --paper: #fcfcfa; --bar: #2f6f9f; --warn: #9a3c00; --card: #f2f4ef; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9e4; --soft: #a4aea5; --line: #3a413b;
  --paper: #161a17; --bar: #6db3e0; --warn: #ffb27a; --card: #1f2521; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
p { max-width: 46rem; margin: .4rem 0; overflow-wrap: anywhere; }
.lead { font-size: 1.15rem; }
.soft, figcaption { color: var(--soft); }
.warning { border-left: .3rem solid var(--warn); padding: .4rem .8rem; background: var(--card); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .9rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: normal; }
thead th { color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child, .words td, .words th { text-align: left; }
.photos { list-style: none; padding: 0; margin: .8rem 0; display: grid; gap: 1rem .8rem;
  grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); }
figure { margin: 0; }
.frame { display: flex; height: 10rem; align-items: center; justify-content: center;
  background: var(--card); border-radius: .3rem; overflow: hidden; }
.frame img { max-width: 100%; max-height: 100%; width: auto; height: auto; }
.frame span { color: var(--soft); padding: .5rem; text-align: center; }
figcaption { font-size: .82rem; line-height: 1.35; margin-top: .3rem; overflow-wrap: anywhere;
  white-space: pre-line; }
.charts { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
svg { display: block; width: 100%; height: auto; }
svg rect { fill: var(--bar); }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg line { stroke: var(--line); }
svg polyline { fill: none; stroke: var(--bar); stroke-width: 2; stroke-linejoin: round; }
svg .second { stroke: var(--warn); stroke-dasharray: 6 4; }
svg .even { stroke: var(--soft); stroke-dasharray: 2 4; }
svg .range { stroke: var(--bar); stroke-width: 2; }
svg circle { fill: var(--bar); }
@media print { :root { --paper: #fff; --card: #fff; } body { max-width: none; }
  figure, tr { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """Return a whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{text(title)}</h1>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def text(words: str) -> str:
    """Return words as HTML that shows them, whatever is in them; fit for an attribute too."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in words))


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph; kind is lead, soft or warning."""
    return f'<p class="{kind}">{text(words)}</p>' if kind else f"<p>{text(words)}</p>"


def table(
    name: str, header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "numbers"
) -> str:
    """Return a table whose first column names the rows; a narrow screen scrolls it sideways.

    Args:
        name: for those who do not see it.
        header: of the columns; the first may be empty.
        rows: their cells.
        kind: numbers are set to the right, words to the left.

    """
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in header[1:])
    first = f'<th scope="col">{text(header[0])}</th>' if header[0] else "<td></td>"
    lines = "\n".join(
        f'<tr><th scope="row">{text(row[0])}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f'<section class="scroll" tabindex="0" aria-label="{text(name)}">\n<table class="{kind}">\n'
        f"<thead><tr>{first}{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</section>"
    )


def histogram(name: str, counts: Sequence[int], low: str, high: str, words: str) -> str:
    """Return a bar chart: its name, the ends of its axis, and in words what it says."""
    wide, tall, most = 300, 90, max([1, *counts])
    step = wide / max(1, len(counts))
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{tall - each / most * tall:.1f}" width="{step - 1:.1f}"'
        f' height="{each / most * tall:.1f}"></rect>'
        for i, each in enumerate(counts)
        if each
    )
    return (
        f'<figure><svg viewBox="0 0 {wide} {tall + 18}" role="img"'
        f' aria-label="{text(f"{name}: {words}")}">{bars}'
        f'<line x1="0" y1="{tall}.5" x2="{wide}" y2="{tall}.5"></line>'
        f'<text x="0" y="{tall + 14}">{text(low)}</text>'
        f'<text x="{wide}" y="{tall + 14}" text-anchor="end">{text(high)}</text></svg>'
        f"<figcaption>{text(name)}\n{text(words)}</figcaption></figure>"
    )


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its name, its ends, and how a number on it is written."""

    name: str
    low: float
    high: float
    form: str = ".0%"


def chart(
    name: str,
    words: str,
    x: Axis,
    y: Axis,
    lines: Sequence[Sequence[tuple[float, float]]],
    ranges: Sequence[tuple[float, float, float, float]] = (),
    *,
    diagonal: bool = False,
) -> str:
    """Return a line chart.

    Args:
        name: above it.
        words: what it says, for those who do not see it as well.
        x: axis to the right.
        y: axis upwards.
        lines: points (x, y) of one line, or of two; the second is dashed.
        ranges: points with an interval, (x, y, low, high).
        diagonal: whether to draw where y is x.

    """
    left, right, top, bottom = 44, 312, 24, 214

    def at(point: tuple[float, float]) -> tuple[float, float]:
        across, up = (
            (min(max(value, axis.low), axis.high) - axis.low) / (axis.high - axis.low or 1)
            for value, axis in zip(point, (x, y), strict=True)
        )
        return left + across * (right - left), bottom - up * (bottom - top)

    parts = []
    for axis in (x, y):
        for value in (axis.low, (axis.low + axis.high) / 2, axis.high):
            written = text(format(value, axis.form))
            if axis is x:
                place, _ = at((value, y.low))
                end = "start" if value == x.low else "end" if value == x.high else "middle"
                parts.append(
                    f'<text x="{place:.1f}" y="{bottom + 15}" text-anchor="{end}">{written}</text>'
                )
            else:
                _, place = at((x.low, value))
                parts.append(
                    f'<line x1="{left}" y1="{place:.1f}" x2="{right}" y2="{place:.1f}"></line>'
                    f'<text x="{left - 6}" y="{place + 4:.1f}" text-anchor="end">{written}</text>'
                )
    middle = (left + right) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 32}" text-anchor="middle">{text(x.name)}</text>')
    parts.append(f'<text x="{left}" y="14">{text(y.name)}</text>')
    if diagonal:
        (x1, y1), (x2, y2) = at((x.low, x.low)), at((x.high, x.high))
        parts.append(
            f'<line class="even" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"></line>'
        )
    for kind, line in zip(("first", "second"), lines, strict=False):
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in map(at, line))
        parts.append(f'<polyline class="{kind}" points="{points}"></polyline>')
    for across, up, low, high in ranges:
        (a, b), (_, c), (_, d) = at((across, up)), at((across, low)), at((across, high))
        parts.append(
            f'<line class="range" x1="{a:.1f}" y1="{c:.1f}" x2="{a:.1f}" y2="{d:.1f}"></line>'
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4"></circle>'
        )
    return (
        f"<figure><figcaption><strong>{text(name)}</strong>\n{text(words)}</figcaption>"
        f'<svg viewBox="0 0 320 250" role="img" aria-label="{text(f"{name}: {words}")}">'
        f"{''.join(parts)}</svg></figure>"
    )


def photos(shown: Sequence[tuple[str, str]]) -> str:
    """Return a grid of photos, each as a picture of `thumbnail` and its caption."""
    figures = "\n".join(
        f'<li><figure><div class="frame">{picture}</div>'
        f"<figcaption>{text(caption)}</figcaption></figure></li>"
        for picture, caption in shown
    )
    return f'<ul class="photos">\n{figures}\n</ul>'


def thumbnail(image: Image.Image | None, alternative: str) -> str:
    """Return an image element that holds the photo itself; words where there is no photo."""
    if image is None:
        return "<span>the photo is not here</span>"
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<img src="data:image/jpeg;base64,{data}" width="{small.width}"'
        f' height="{small.height}" alt="{text(alternative)}">'
    )
