"""Charts of a page; `templates/parts.html` draws them as SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEFT, RIGHT, TOP, BOTTOM = 44, 312, 24, 214  # of the plotting area, in units of the picture
POINTS = 200  # of a line


@dataclass(frozen=True)
class Axis:
    """One axis of a chart: its name, its ends, and how a number on it is written."""

    name: str
    low: float
    high: float
    form: str = ".0%"

    def share(self, value: float) -> float:
        """Return how far along the axis a value lies, 0 to 1; what is beyond lies at the end."""
        return (min(max(value, self.low), self.high) - self.low) / (self.high - self.low or 1)

    def text(self, value: float) -> str:
        """Return a value as it is written at the axis."""
        return format(value, self.form)

    @property
    def ticks(self) -> list[float]:
        """The ends and the middle, or the one value that there is."""
        return sorted({self.low, (self.low + self.high) / 2, self.high})


@dataclass(frozen=True)
class Chart:
    """A line chart.

    Attributes:
        name: above it.
        words: what it says, for those who do not see it as well.
        x: axis to the right.
        y: axis upwards.
        lines: points (x, y) of one line, or of two; the second is dashed.
        ranges: points with an interval, (x, y, low, high).
        diagonal: whether to draw where y is x.

    """

    name: str
    words: str
    x: Axis
    y: Axis
    lines: Sequence[Sequence[tuple[float, float]]] = ()
    ranges: Sequence[tuple[float, float, float, float]] = ()
    diagonal: bool = False

    def across(self, value: float) -> str:
        """Return the place of a value of x, in units of the picture."""
        return f"{LEFT + self.x.share(value) * (RIGHT - LEFT):.1f}"

    def up(self, value: float) -> str:
        """Return the place of a value of y, from the top."""
        return f"{BOTTOM - self.y.share(value) * (BOTTOM - TOP):.1f}"

    def polyline(self, line: Sequence[tuple[float, float]]) -> str:
        """Return the places of a line's points, of many at most `POINTS`, the ends among them."""
        kept = range(len(line))
        if len(line) > POINTS:
            kept = np.linspace(0, len(line) - 1, POINTS).round().astype(int).tolist()
        return " ".join(f"{self.across(line[i][0])},{self.up(line[i][1])}" for i in kept)


@dataclass(frozen=True)
class Histogram:
    """A bar chart: its name, its bars, the ends of its axis, and in words what it says."""

    name: str
    counts: Sequence[int]
    low: str
    high: str
    words: str
