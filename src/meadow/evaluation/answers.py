"""What the classifier says of the photos of a split, whichever machines ask it."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from meadow.inference.classifier import Answer, Classifier
from meadow.pipeline import manifest, parallel
from meadow.pipeline.manifest import Row
from meadow.pipeline.parallel import Machines


def answers(
    model: Classifier, folder: Path, rows: Sequence[Row], machines: Machines
) -> Iterator[Answer]:
    """Yield the answer to each photo.

    Args:
        model: what is asked.
        folder: of the photos.
        rows: the photos, as prepare saw them.
        machines: where it is done.

    Raises:
        MeadowError: a photo has changed since prepare.

    """
    work = partial(_answer, model, machines.path(folder))
    return parallel.ordered(work, rows, machines, title="evaluate")


def _answer(model: Classifier, folder: Path, row: Row) -> Answer:
    return model.predict(manifest.read_photo(folder / row.path, row.sha256))
