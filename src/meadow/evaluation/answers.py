"""What the classifier says of the photos of a split, whichever machines ask it."""

from collections.abc import Iterator, Sequence
from functools import partial

from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline import parallel, places
from meadow.pipeline.manifest import Row
from meadow.pipeline.parallel import Machines
from meadow.pipeline.places import Place


def answers(
    model: Classifier, where: Place, rows: Sequence[Row], machines: Machines
) -> Iterator[Answer]:
    """Yield the answer to each photo.

    Args:
        model: what is asked.
        where: the set's folder or bucket.
        rows: the photos, as prepare saw them.
        machines: where it is done.

    Raises:
        MeadowError: a photo has changed since prepare.

    """
    work = partial(_answer, model, machines.path(where))
    return parallel.ordered(work, rows, machines.reading(where), title="evaluate")


def _answer(model: Classifier, where: Place, row: Row) -> Answer:
    return model.predict(places.read_as(where, row.path, row.sha256))
