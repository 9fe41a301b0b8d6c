"""A set of photos: one folder per class."""

import re
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from meadow.curation import names
from meadow.errors import MeadowError
from meadow.pipeline import places
from meadow.pipeline.formats import SUFFIXES
from meadow.pipeline.places import Place

MAX_CLASSES = 10_000  # as many as a head was measured with
TRAIN_ONLY = "train-only"  # folder in that of a class: see `PhotoFile.train_only`
ANNOTATED = {"images", "labels", "annotations", "masks"}  # folders of sets that show where
SPLIT = re.compile(  # train, valid, training_set, seg_test, ...
    r"(?:\w+_)?"
    r"(?:(?P<train>train(?:ing)?)|(?P<val>val(?:id(?:ation)?)?|dev)|(?P<test>test(?:ing)?))"
    r"(?:[_ -]?(?:set|data|images|photos))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PhotoFile:
    """A file of the set. `path` is relative to the set's folder, with forward slashes."""

    path: str
    label: str

    @property
    def train_only(self) -> bool:
        """Whether it was chosen by the model's answer, as one that it is unsure of.

        Figures on such photos say nothing of others, so it is in no split but train.
        """
        return TRAIN_ONLY in self.path.split("/")[1:-1]


def find(where: Place) -> list[PhotoFile]:
    """List the files of a set by path; the name of a top folder is the class of all files below.

    Litter is passed over, and what lies beside the class folders and is no photo.

    Raises:
        MeadowError: no folder or bucket, or what `check` refuses.

    """
    if isinstance(where, Path) and not where.is_dir():
        raise MeadowError(
            f"there is no folder {where}. `meadow data demo` draws a set, `meadow data import DIR`"
            " takes yours, `dvc pull` fetches the one that was committed."
        )
    everything, tops = places.listing(where)
    # Not a README, or a list of check sums
    paths = [path for path in everything if "/" in path or looks_like_a_photo(path)]
    for top in tops:
        if isinstance(where, Path) and (where / top).is_symlink():
            raise MeadowError(
                f"the class folder {names.printable(places.at(where, top))} is a link, and DVC"
                f" keeps nothing that is behind one. Run `cp -rL {shlex.quote(str(where))} COPY`,"
                " then `meadow data import COPY`."
            )
    check(where, paths, tops)
    return [PhotoFile(path, sys.intern(path.partition("/")[0])) for path in paths]


def looks_like_a_photo(name: str) -> bool:
    """Tell whether a file has the suffix of a photo."""
    return Path(name).suffix.lower() in SUFFIXES


def split_of(folder: str) -> str | None:
    """Return train, val or test if a folder has the name of such a part of a set."""
    match = SPLIT.fullmatch(folder)
    return match and match.lastgroup


def are_splits(folders: Collection[str]) -> bool:
    """Tell whether the top folders of a set are splits: one for training, and another."""
    parts = {*map(split_of, folders)} - {None}
    return "train" in parts and len(parts) > 1


def check(source: Place, paths: Sequence[str], folders: Collection[str]) -> None:
    """Check that a set has one folder per class, and names that every system can hold.

    Args:
        source: the set, for the messages.
        paths: of its files, relative to it, with forward slashes.
        folders: names of the folders at its top.

    Raises:
        MeadowError: the folders are splits or hold annotations, a file lies beside them, a name is
            not allowed (`names.check`), a folder is empty, or there are fewer than 2 or more than
            `MAX_CLASSES` classes.

    """
    if are_splits(folders):
        raise MeadowError(
            f"{source} is divided into {names.listed(folders)}: splits, not classes. `meadow data"
            " import DIR --merge-splits` makes one set of the class folders in them, which prepare"
            " splits anew, near-duplicates together. If the photos lie in no class folders, `meadow"
            " data import DIR --labels FILE` reads their labels from a CSV or JSON file. (DIR is"
            " this folder, in a place outside data.dir.)"
        )
    if loose := [path for path in paths if "/" not in path]:
        raise MeadowError(
            f"{source}: {names.listed(loose)} lies beside the class folders. Move it into the"
            " folder of its class, or out of the set; `meadow data import DIR --labels FILE` reads"
            " labels from a CSV or JSON file."
        )
    names.check(source, paths)
    classes = {path.partition("/")[0] for path in paths}
    if classes and {name.lower() for name in classes} <= ANNOTATED:
        raise MeadowError(
            f"{source} has no classes but {names.listed(classes)}, as sets for object detection"
            " have. Export it for classification, one folder per class; or give a table of labels:"
            " `meadow data import DIR --labels FILE`."
        )
    if empty := {*folders} - classes:
        raise MeadowError(
            f"{source}: no files in the class folder {names.listed(empty)}. Fill it or remove it."
        )
    if not 2 <= len(classes) <= MAX_CLASSES:
        only = f" ({names.listed(classes)})" if len(classes) == 1 else ""
        raise MeadowError(
            f"{source} has {len(classes)} classes{only}; 2 to {MAX_CLASSES} are needed, one folder"
            " each: dandelion/..., grass/... Sort the photos into such folders, then `meadow data"
            " import` the folder that holds them."
        )
