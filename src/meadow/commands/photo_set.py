"""Put photos into the set's folder, and track them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from meadow import params
from meadow.errors import MeadowError
from meadow.pipeline import places
from meadow.storage import dvc_git


def draw(count: int) -> None:
    """Draw a set by program."""
    from meadow.commands import demo  # with Pillow and httpx: 0.1 s

    _track(lambda folder: demo.draw(folder, count))


def fetch(source: Path | None) -> None:
    """Fetch the real set, or take a copy at hand."""
    from meadow.commands import dandelion_grass  # with pooch and requests: 0.1 s

    _track(lambda folder: dandelion_grass.fetch(folder, source))


def take(
    source: str,
    merge_splits: bool,
    labels: Path | None,
    columns: tuple[str, str] | None,
    encoding: str | None,
    add: bool,
) -> None:
    """Take a folder, zip or bucket; see `importing.import_set`.

    Raises:
        MeadowError: it is the set itself, or photos would be lost.

    """
    from meadow.commands import importing  # with charset-normalizer: 0.05 s

    folder, source_place = where(), places.place(source)
    if isinstance(source_place, Path) and source_place.resolve().is_relative_to(folder.resolve()):
        raise MeadowError(f"{source} is the set itself. Track its changes: `dvc add {folder}`.")
    make = partial(
        importing.import_set, source_place,
        merge_splits=merge_splits, labels=labels, columns=columns, encoding=encoding, add=add,
    )  # fmt: skip
    _track(make, replace=not add)


def where() -> Path:
    """Return the folder of the photos, into which commands write.

    Raises:
        MeadowError: they lie in a bucket.

    """
    address = params.load().data.dir
    if "://" in address:
        raise MeadowError(
            f"data.dir is {address}, and this command writes into a local folder. Put photos into"
            " the bucket with a client of it, such as `aws s3 sync`; or give data.dir a folder, for"
            " instance data/raw."
        )
    return Path(address)


def _track(make: Callable[[Path], None], *, replace: bool = True) -> None:
    folder = where()
    if replace:
        dvc_git.refuse_untracked(folder)
    make(folder)
    dvc_git.track(folder)
    print(
        f"{folder} is tracked by {folder}.dvc. Next: `dvc repro`, then `git add -A && git commit`."
    )
