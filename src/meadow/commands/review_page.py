"""`meadow review --html`: doubtful labels, each beside the photos that are most like it."""

from pathlib import Path

from meadow import params
from meadow.errors import MeadowError
from meadow.evaluation import predictions
from meadow.pipeline import atomic, places
from meadow.reporting import html
from meadow.reporting.html import Picture
from meadow.reporting.neighbours import Neighbours

SHOWN = 24  # labels
NEIGHBOURS = 5  # of each


def write(page: Path) -> None:
    """Write the page: the most doubtful labels of reports/review.csv.

    Args:
        page: where to.

    Raises:
        MeadowError: there is no such table, or the cache is damaged.

    """
    try:
        doubtful = predictions.load(predictions.OUT_OF_FOLD)
    except FileNotFoundError:
        raise MeadowError(
            f"{predictions.OUT_OF_FOLD} is missing. Run `dvc repro evaluate` or `dvc pull`."
        ) from None
    where, known = places.place(params.load().data.dir), Neighbours.known()

    def picture(path: str, label: str, *words: str) -> Picture:
        return Picture.of(places.look(where, path), label, "\n".join([label, *words, path]))

    labels = []
    for answer in doubtful[:SHOWN]:
        near = known.nearest(answer.sha256, NEIGHBOURS) if known else []
        words = f"{answer.predicted} {answer.confidence:.0%}"
        photo = picture(answer.path, answer.label, f"predicted: {words}")
        others = [picture(row.path, row.label, f"distance {far:.2f}") for far, row in near]
        labels.append({"path": answer.path, "issue": answer.issue, "pictures": [photo, *others]})
    text = html.render(
        "review.html",
        title="Doubtful labels",
        labels=labels,
        all=len(doubtful),
        near=known is not None,
    )
    with atomic.whole(page) as part:
        part.write_text(text, "utf-8")
    print(f"{page} shows {len(labels)} of {len(doubtful)} labels, the most doubtful first.")
