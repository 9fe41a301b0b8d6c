"""The model card: what a classifier is for, how good it is, and where it ends, to go with it.

Its sections are those of Mitchell et al. (2019), Model Cards for Model Reporting.
"""

from pathlib import Path

from tabulate import tabulate

from meadow.reporting.findings import Findings, Table

USE = """\
Served, it takes a photo at `POST /predict` and answers JSON:

```sh
curl -F file=@photo.jpg http://localhost:3000/predict
```

`label` is the likeliest class and `confidence` its calibrated probability. `prediction_set` holds
every class that cannot be ruled out. `in_distribution` is false where the photo is unlike all that
the model has learned from; then do not believe the label. The file of the network is
`models/classifier/model.onnx`: pixels in, probabilities out, for any ONNX Runtime."""


def write(folder: Path, found: Findings) -> None:
    """Write model-card.md: the same findings, the same bytes."""
    sections = {
        "Intended use": _use(found),
        "How to ask it": USE,
        "Figures": _figures(found),
        "Each class": _table(found.per_class),
        "Data": _data(found),
        "Limits": _limits(found),
        found.origin.name: _table(found.origin),
    }
    parts = ["# Model card", found.headline]
    parts += [f"## {title}\n\n{body}" for title, body in sections.items()]
    (folder / "model-card.md").write_text("\n\n".join(parts) + "\n", "utf-8")


def _use(found: Findings) -> str:
    return (
        f"To tell photos of {_safe(found.classes)} apart, of the kind that it was tested on: one"
        " subject a photo, from the same sources. Every photo gets one of these labels, also one"
        " that shows something else."
    )


def _figures(found: Findings) -> str:
    about = (
        f"Measured on {found.figures['n_test']} test photos that no step of the learning has seen,"
        " through the network that is served."
    )
    if found.out_of_fold:
        about += (
            f" What is cross-validated is of the {found.figures['cv_n']} other photos, each judged"
            " by a head that did not learn from it."
        )
    word = "passed" if found.verdict["passed"] else "did not pass"
    reasons = "\n".join(f"- {_safe(why)}" for why in found.verdict["why"])
    return f"{about}\n\n{_table(found.measured)}\n\nIt {word} the gate:\n\n{reasons}"


def _data(found: Findings) -> str:
    return f"{len(found.ready.rows):,} photos, split by content.\n\n{_table(found.photos)}"


def _limits(found: Findings) -> str:
    size = found.ready.preprocessing.size
    wrong = int((found.test.predicted != found.test.targets).sum())
    limits = [
        f"It is wrong on {wrong} of its {len(found.test.rows)} test photos; the report shows them.",
        "Photos of other cameras, places or seasons than those of its data were not measured.",
        f"It sees {size} x {size} pixels of a photo: a subject that is small in it may be lost.",
        "`in_distribution` was set by the photos it learned from; what else a photo may show was"
        " not measured on this set.",
    ]
    return "\n".join(f"- {each}" for each in limits)


def _table(of: Table) -> str:
    rows = [[_safe(cell) for cell in row] for row in of.rows]
    align = ["left", *["right"] * (len(of.header) - 1)]
    return str(tabulate(rows, of.header, "pipe", colalign=align, disable_numparse=True))


def _safe(words: str) -> str:
    """Escape what Markdown or HTML would take for its own: a class may have any name."""
    kept = "".join(c if c.isprintable() else "\ufffd" for c in words)
    return "".join(f"\\{c}" if c in r"\`*_{}[]<>#|&~" else c for c in kept)
