"""Draw the panels of Grafana's dashboard from what a Prometheus answers, as one SVG for the docs.

python bench/dashboard.py http://127.0.0.1:9090 docs/dashboard.svg --minutes 10
"""

import argparse
import json
import math
import time
import urllib.parse
import urllib.request
from html import escape
from pathlib import Path
from typing import Any

BOARD = Path("deploy/monitoring/grafana/meadow.json")
WIDTH, HEIGHT, TOP, BOTTOM = 300, 150, 24, 112  # of a panel, and of its plot
COLOURS = ("#1b6ca8", "#c2570c", "#2e7d32", "#8e24aa", "#b71c1c", "#5d4037")
Line = tuple[str, list[tuple[float, float]]]


def queries(panel: dict[str, Any]) -> list[tuple[str, str]]:
    """Return expression and legend of each query of a panel, Grafana's variables filled in.

    There is one instance: a legend that has more does without it.
    """
    return [
        (
            t["expr"].replace("$job", "meadow").replace("$__rate_interval", "1m"),
            t["legendFormat"].replace(" {{instance}}", ""),
        )
        for t in panel["targets"]
    ]


def lines(url: str, panel: dict[str, Any], minutes: float) -> list[Line]:
    """Return what the panel shows: each series with its name and points (seconds, value)."""
    now = time.time()
    drawn = []
    for expression, legend in queries(panel):
        asked = {"query": expression, "start": now - 60 * minutes, "end": now, "step": minutes}
        address = f"{url}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(address) as answer:  # noqa: S310
            for series in json.load(answer)["data"]["result"]:
                name = legend
                for label, value in series["metric"].items():
                    name = name.replace(f"{{{{{label}}}}}", value)
                points = [(at - now + 60 * minutes, float(text)) for at, text in series["values"]]
                drawn.append((name, [point for point in points if math.isfinite(point[1])]))
    return [line for line in drawn if line[1]]


def picture(panel: dict[str, Any], shown: list[Line], minutes: float) -> str:
    """Return a panel as SVG."""
    most = max(max(y for _, y in points) for _, points in shown)
    top = most or 1  # of a plot without height
    unit = panel["fieldConfig"]["defaults"]["unit"]
    scale, end = {"percentunit": (100, " %"), "s": (1000, " ms"), "bytes": (1e-9, " GB")}.get(
        unit, (1, "/s" if unit == "reqps" else "")
    )
    parts = [
        f'<text class="name" x="4" y="14">{escape(panel["title"])}</text>',
        f'<text x="{WIDTH - 6}" y="14" text-anchor="end">up to {most * scale:.3g}{end}</text>',
        f'<path class="axis" d="M4 {BOTTOM}H{WIDTH - 6}"/>',
    ]
    for number, (name, points) in enumerate(shown[: len(COLOURS)]):
        colour = COLOURS[number]
        places = " ".join(
            f"{4 + x / 60 / minutes * (WIDTH - 10):.1f},{BOTTOM - y / top * (BOTTOM - TOP):.1f}"
            for x, y in points
        )
        parts.append(f'<polyline stroke="{colour}" points="{places}"/>')
        x, y = 4 + number % 3 * 98, BOTTOM + 14 + number // 3 * 13
        parts.append(f'<text x="{x}" y="{y}" fill="{colour}">{escape(name[:18])}</text>')
    return "".join(parts)


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    panels = [
        (panel, shown)
        for panel in json.loads(BOARD.read_text())["panels"]
        if (shown := lines(given.url, panel, given.minutes))
    ]
    rows = math.ceil(len(panels) / 3)
    drawn = "".join(
        f'<g transform="translate({i % 3 * WIDTH} {i // 3 * HEIGHT})">'
        f"{picture(panel, shown, given.minutes)}</g>"
        for i, (panel, shown) in enumerate(panels)
    )
    style = (
        "text{font:11px sans-serif}.name{font-weight:bold}.axis{stroke:#bbb}"
        "polyline{fill:none;stroke-width:1.5}"
    )
    given.out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {rows * HEIGHT}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'
    )


if __name__ == "__main__":
    main()
