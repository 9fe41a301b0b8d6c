"""What differs between versions: parameters, figures and single photos; nothing is run anew.

All of it is read from what Git and DVC keep. The first version is the baseline.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from meadow.errors import MeadowError
from meadow.evaluation.significance import Comparison, Pair
from meadow.experiments.revision import Revision

MISSING = "-"
TEST = "on the test photos"
CROSS_VALIDATED = "cross-validated on the train and val photos"


@dataclass(frozen=True)
class Difference:
    """A parameter or figure that differs: for each version a value, or (value, low, high)."""

    name: str
    values: Sequence[Any]

    @property
    def cells(self) -> list[str]:
        """The values as texts, and the change where there are two."""
        change = [_change(*self.values)] if len(self.values) == 2 else []
        return [*map(_formatted, self.values), *change]


@dataclass(frozen=True)
class PhotoComparison:
    """A version against the baseline, photo by photo.

    Attributes:
        baseline: the first version.
        version: the other.
        where: on which photos, in words.
        comparison: None where they cannot be compared.
        problem: why not, or "".

    """

    baseline: Revision
    version: Revision
    where: str
    comparison: Comparison | None
    problem: str

    @property
    def changes(self) -> list[tuple[str, Sequence[Pair]]]:
        """What became right, and what became wrong, each with its verb, where there is any."""
        if self.comparison is None:
            return []
        both = [("Mended", self.comparison.mended), ("Broken", self.comparison.broken)]
        return [(verb, pairs) for verb, pairs in both if pairs]


@dataclass(frozen=True)
class Differences:
    """All that differs between versions, the first of which is the baseline."""

    versions: Sequence[Revision]
    parameters: Sequence[Difference]
    figures: Sequence[Difference]
    on_photos: Sequence[PhotoComparison]

    @classmethod
    def between(cls, versions: Sequence[Revision]) -> "Differences":
        """Read what Git and DVC keep of them."""
        baseline, *others = versions
        return cls(
            versions,
            _differences([version.parameters for version in versions]),
            _differences([_with_intervals(version.figures) for version in versions]),
            [
                on_photos
                for version in others
                for on_photos in _on_photos(baseline, version, len(others))
            ],
        )

    @property
    def tables(self) -> list[tuple[str, Sequence[Difference]]]:
        """Parameters and figures, with their titles."""
        return [("Parameters that differ", self.parameters), ("Figures that differ", self.figures)]

    @property
    def header(self) -> list[str]:
        """The heads of the tables' columns."""
        change = ["change"] * (len(self.versions) == 2)
        return ["", *(version.title for version in self.versions), *change]

    @property
    def notes(self) -> list[str]:
        """What to know before one believes the figures."""
        notes = [
            f"The figures of {version.name} were made with other values of"
            f" {', '.join(version.outdated)}: `dvc repro` makes them anew."
            for version in self.versions
            if version.outdated
        ]
        if (others := len(self.versions) - 1) > 1:
            notes.append(
                f"{others} versions are compared with {self.versions[0].name}: each interval is of"
                f" {1 - 0.05 / others:.1%}, so that all of them hold together with 95 %."
            )
        return notes


def sentences(on_photos: PhotoComparison) -> list[str]:
    """Say what came of a comparison on photos."""
    if on_photos.comparison is None:
        return [on_photos.problem]
    c, old, new = on_photos.comparison, on_photos.baseline, on_photos.version
    n = len(c.pairs)
    text = []
    if c.tested != (n, n):
        text.append(
            f"{old.name} was judged on {photos(c.tested[0])}, {new.name} on {c.tested[1]}; both on"
            f" {n + c.relabelled}."
        )
    if c.relabelled:
        text.append(f"{c.relabelled} of these have another label now, and are not compared.")
    if not n:
        return [*text, "No photo can be compared."]
    if all(a.predicted == b.predicted and a.p_label == b.p_label for a, b in c.pairs):
        return [*text, f"{new.name} gives the same answers to all {photos(n)}."]
    text.append(f"Of {photos(n)} {new.name} mends {len(c.mended)} and breaks {len(c.broken)}.")
    chance = f"no difference that {photos(n)} could show"
    points, low, high = (_signed(100 * value, 1) for value in c.accuracy)
    p = f"p = {c.p_value:.2g}" if c.p_value >= 0.001 else "p < 0.001"
    more = "higher" if c.accuracy[0] > 0 else "lower"
    verdict = f"significantly {more}" if c.differs else chance
    if not c.differs and (c.accuracy[1] > 0 or c.accuracy[2] < 0):
        verdict = f"probably {more}, but so few changes do not prove it"
    text.append(
        f"Accuracy {points} points ({low} to {high}), {p} by McNemar's exact test: {verdict}."
    )
    if not c.differs and c.needed <= n:
        text.append(f"(A model that breaks none would have to mend {c.needed} to show one.)")
    loss, low, high = (_signed(value, 3) for value in c.log_loss)
    verdict = chance
    if c.log_loss[1] > 0:
        verdict = "significantly higher, which is worse"
    elif c.log_loss[2] < 0:
        verdict = "significantly lower, which is better"
    text.append(f"Log-loss {loss} ({low} to {high}), paired bootstrap: {verdict}.")
    return text


def photos(n: int) -> str:
    """Count photos in words."""
    return "1 photo" if n == 1 else f"{n} photos"


def _on_photos(
    baseline: Revision, version: Revision, comparisons: int
) -> Iterator[PhotoComparison]:
    """Compare on the test photos and, where both were cross-validated, on the others.

    `comparisons` is the number of versions that are compared with the baseline.
    """
    for where, table in ((TEST, "answers"), (CROSS_VALIDATED, "cross_validated")):
        try:
            old, new = getattr(baseline, table), getattr(version, table)
        except MeadowError as error:
            problem = f"Photos are not compared: {error}"
            yield PhotoComparison(baseline, version, where, None, problem)
            return  # what keeps one table from being read, keeps the other
        if old and new:
            comparison = Comparison.of(old, new, comparisons)
            yield PhotoComparison(baseline, version, where, comparison, "")


def _differences(versions: Sequence[dict[str, Any]]) -> list[Difference]:
    names = dict.fromkeys(name for version in versions for name in version)
    table = {name: [version.get(name, MISSING) for version in versions] for name in names}
    return [
        Difference(name, values)
        for name, values in table.items()
        if any(value != values[0] for value in values)
    ]


def _with_intervals(figures: dict[str, Any]) -> dict[str, Any]:
    """Join x, x_low and x_high to one figure."""
    return {
        name: (value, figures[f"{name}_low"], figures[f"{name}_high"])
        if f"{name}_low" in figures
        else value
        for name, value in figures.items()
        if not (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in figures)
    }


def _formatted(value: Any) -> str:
    if isinstance(value, tuple):
        figure, low, high = (f"{number:.3f}" for number in value)
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
