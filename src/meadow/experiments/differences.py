"""What differs between versions: parameters, figures and single photos; nothing is run anew.

All of it is read from what Git and DVC keep. The first version is the baseline.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meadow.errors import MeadowError
from meadow.evaluation.significance import Comparison
from meadow.experiments.revision import Revision

MISSING = "-"
TEST = "on the test photos"
CROSS_VALIDATED = "cross-validated on the train and val photos"


@dataclass(frozen=True)
class Row:
    """A parameter or figure that differs: a value a revision, or (value, low, high)."""

    name: str
    values: Sequence[Any]

    @property
    def cells(self) -> list[str]:
        """The values as texts, and the change where there are two."""
        change = [_change(*self.values)] if len(self.values) == 2 else []
        return [*map(_shown, self.values), *change]


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


def words(against: Against) -> list[str]:
    """Say what a comparison on photos found, in sentences."""
    if against.comparison is None:
        return [against.why]
    c, old, new = against.comparison, against.baseline, against.revision
    n = len(c.pairs)
    said = []
    if c.tested != (n, n):
        said.append(
            f"{old.name} was judged on {photos(c.tested[0])}, {new.name} on {c.tested[1]}; both on"
            f" {n + c.relabelled}."
        )
    if c.relabelled:
        said.append(f"{c.relabelled} of these have another label now, and are not compared.")
    if not n:
        return [*said, "No photo can be compared."]
    if all(a.predicted == b.predicted and a.p_label == b.p_label for a, b in c.pairs):
        return [*said, f"{new.name} gives the same answers to all {photos(n)}."]
    said.append(f"Of {photos(n)} {new.name} mends {len(c.mended)} and breaks {len(c.broken)}.")
    chance = f"no difference that {photos(n)} could show"
    points, low, high = (_signed(100 * value, 1) for value in c.accuracy)
    p = f"p = {c.p_value:.2g}" if c.p_value >= 0.001 else "p < 0.001"
    more = "higher" if c.accuracy[0] > 0 else "lower"
    verdict = f"significantly {more}" if c.differs else chance
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
        verdict = "significantly higher, which is worse"
    elif c.log_loss[2] < 0:
        verdict = "significantly lower, which is better"
    said.append(f"Log-loss {loss} ({low} to {high}), paired bootstrap: {verdict}.")
    return said


def photos(n: int) -> str:
    """Count photos in words."""
    return "1 photo" if n == 1 else f"{n} photos"


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


def _rows(versions: Sequence[dict[str, Any]]) -> list[Row]:
    names = dict.fromkeys(name for version in versions for name in version)
    rows = []
    for name in names:
        values = [version.get(name, MISSING) for version in versions]
        if any(value != values[0] for value in values):
            rows.append(Row(name, values))
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
