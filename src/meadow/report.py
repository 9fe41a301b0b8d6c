"""Show what evaluate measured: the report, the model card, the mistakes as one picture.

Nothing is measured here, so that an edit of a page's words or style repeats no cross-validation.

Reads:  metrics/evaluate.json, metrics/gate.json, metrics/plots/, metrics/train/plots/; in reports/
        predictions.csv, classes.csv, review.csv and provenance.json; data/prepared/,
        models/classifier/model.json, and the photos that it shows (data.dir).
Writes: reports/report.html, reports/model-card.md and reports/mistakes.png.
"""

from pathlib import Path

from meadow import params
from meadow.errors import run
from meadow.pipeline import atomic, places
from meadow.reporting import classifier_report, model_card
from meadow.reporting.findings import Findings

PAGE = Path("reports/report.html")
CARD = Path("reports/model-card.md")
MISTAKES = Path("reports/mistakes.png")


def report() -> None:
    """Run the stage."""
    photos = places.place(params.load().data.dir)
    findings = Findings.read()
    with atomic.whole(PAGE) as part:
        part.write_text(classifier_report.page(findings, photos), "utf-8")
    with atomic.whole(CARD) as part:
        part.write_text(model_card.card(findings), "utf-8")
    with atomic.whole(MISTAKES) as part:
        classifier_report.write_mistakes(part, findings, photos)
    print(findings.summary)
    print(f"Look: {PAGE}")


if __name__ == "__main__":
    run(report)
