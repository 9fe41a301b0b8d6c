"""Take a set of photos from a folder or a .zip file into one folder per class.

Only names and sizes are judged here, so that whatever is written lies inside the target and has
the same names on every system; whether a file is a photo is for the prepare stage to say.
"""

import sys
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from tqdm import tqdm

from meadow.commands import adding, inbox_folder, label_file, layouts, sources
from meadow.commands.sources import Entry
from meadow.curation import discovery, names
from meadow.errors import MeadowError
from meadow.pipeline import atomic
from meadow.pipeline.formats import SUFFIXES
from meadow.pipeline.image import MAX_BYTES
from meadow.pipeline.places import Place

MAX_SET = 200_000_000_000  # bytes, unpacked
MAX_RATIO = 100  # unpacked to packed; photos are compressed already and stay near 1
LISTED = 20  # classes in the summary
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def import_set(
    source: Place,
    target: Path,
    *,
    merge_splits: bool = False,
    labels: Path | None = None,
    columns: Sequence[str] | None = None,
    encoding: str | None = None,
    add: bool = False,
) -> None:
    """Copy or unpack a set of photos, and print how many files each class has.

    The class folders may also lie under single folders at the top. Litter, and what lies beside
    the class folders and is no photo, is left behind.

    Args:
        source: a folder, a .zip file or a bucket. Links in a folder are followed as long as they
            stay in it.
        target: the set's new folder, written whole or not at all; replaced if there is one.
        merge_splits: the class folders lie in splits (train, test), which become one set.
        labels: a file with the label of each photo, wherever the photo lies.
        columns: of this file, those of photo and label, if they are not to be found.
        encoding: of the names in the archive, where it does not say and it cannot be found.
        add: the target keeps what it has.

    Raises:
        MeadowError: no such source, one that overlaps the target, a damaged, encrypted, unsafe or
            oversized archive, a link that leads out, or what `discovery.check` refuses.

    """
    if isinstance(source, Path):
        check_apart(source, target)
    try:
        known = discovery.find(target) if add else []
        classes = {file.label for file in known}
        with sources.opened(source, encoding) as everything:
            entries, behind = _arranged(source, everything, merge_splits, labels, columns, classes)
            files = [entry for entry in entries if entry.open]
            folders = {
                entry.parts[0] for entry in entries if len(entry.parts) > 1 or not entry.open
            }
            paths = [entry.path for entry in files]
            kept = {file.path for file in known} - {*paths}
            discovery.check(source, [*paths, *sorted(kept)], folders | classes)
            # macOS stores some names decomposed: written composed, they are the same everywhere.
            files = [Entry(tuple(map(_composed, entry.parts)), entry.open) for entry in files]
            if add:
                new = f", {_add(source, files, target)} of them new"
            else:
                new = ""
                with atomic.whole(target) as part:
                    _write(source, files, part)
    except PermissionError as error:
        raise MeadowError(
            f"permission denied: {error.filename}. Change it with chmod, then run this again."
        ) from None
    counts = sorted(Counter(entry.parts[0] for entry in files).items())
    print(f"{target}: {len(files)} files in {len(counts)} classes{new}")
    for label, count in counts[:LISTED]:
        print(f"{count:8} {label!r}")
    if len(counts) > LISTED:
        print(f"         and {len(counts) - LISTED} more classes")
    odd = [entry.path for entry in files if not entry.path.lower().endswith(SUFFIXES)]
    _warn(f"files that do not end in {', '.join(SUFFIXES)}; prepare judges them by content", odd)
    _warn("left behind, as they are in no class", [entry.path for entry in behind])


def _add(source: Place, files: Sequence[Entry], target: Path) -> int:
    part, _ = atomic.beside(target)
    atomic.remove(part)
    try:
        _write(source, files, part)
        return adding.add(part, [entry.path for entry in files], target)
    finally:
        atomic.remove(part)


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _warn(what: str, paths: list[str]) -> None:
    if paths:
        print(f"warning: {what} ({len(paths)}): {names.listed(paths)}", file=sys.stderr)


def check_apart(source: Path, target: Path) -> None:
    """Refuse a source that replacing `target` would destroy, or that contains it.

    Raises:
        MeadowError: one lies in the other, or they are the same.

    """
    real = source.resolve()
    for written in (path.resolve() for path in (target, *atomic.beside(target))):
        if real.is_relative_to(written) or written.is_relative_to(real):
            raise MeadowError(
                f"{source} and {target}, which is to be written, overlap. Take the photos from a"
                f" folder elsewhere; if they lie in {target} already, `dvc add {target}` tracks"
                " them."
            )


def _arranged(
    source: Place,
    entries: list[Entry],
    merge_splits: bool,
    labels: Path | None,
    columns: Sequence[str] | None,
    classes: Collection[str],
) -> tuple[list[Entry], list[Entry]]:
    """Return the entries with their classes at the top, and what is left behind."""
    packed = [entry.path for entry in entries if entry.path.lower().endswith(ARCHIVES)]
    if packed and not any(discovery.looks_like_a_photo(entry.path) for entry in entries):
        raise MeadowError(
            f"{source} holds archives where class folders should be: {names.listed(packed)}. Unpack"
            " it and them, each into a folder with the name of its class, then `meadow data import`"
            " the folder of these folders."
        )
    if columns and not labels:
        raise MeadowError("--columns are those of a table. Give the table too: `--labels FILE`.")
    if labels := labels or inbox_folder.labels_of(source, entries):
        labelled, without = label_file.labelled(source, entries, labels, columns)
        return inbox_folder.placed(source, entries, labelled), without
    entries, beside = layouts.unwrapped(entries, classes)
    if merge_splits:
        if not discovery.are_splits({entry.parts[0] for entry in entries}):
            raise MeadowError(
                f"{source} has no folders of splits, such as train and test. Leave out"
                " --merge-splits."
            )
        entries, unlabelled = layouts.merged_splits(entries)
        beside += unlabelled
    return entries, beside


def _write(source: Place, entries: Sequence[Entry], folder: Path) -> None:
    """Write the files; sizes are counted on the way, because an archive may lie about them."""
    total = 0
    limit = MAX_SET
    # A small archive of blank pictures packs well, and is no bomb.
    if isinstance(source, Path) and source.is_file():
        limit = min(MAX_SET, max(MAX_BYTES, MAX_RATIO * source.stat().st_size))
    ahead = sources.ahead(source, entries)
    for entry in tqdm(ahead, "import", len(entries), unit="photo", disable=None):
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 0
        with path.open("wb") as file:
            for chunk in entry.chunks(source):
                size += len(chunk)
                total += len(chunk)
                if size > MAX_BYTES:
                    raise MeadowError(
                        f"{source}: {entry.path!r} has more than {MAX_BYTES:,} bytes, too many"
                        " for a photo. Remove it from the set."
                    )
                if total > limit:
                    raise MeadowError(
                        f"{source} unpacks to more than {limit:,} bytes: {MAX_SET:,} in all are"
                        f" allowed, and {MAX_RATIO} times the size of an archive. Remove from it"
                        " what is no photo."
                    )
                file.write(chunk)
