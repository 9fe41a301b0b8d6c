"""From the folders that people have to one folder per class."""

from collections.abc import Collection

from meadow.commands.sources import Entry
from meadow.curation import discovery


def unwrapped(entries: list[Entry], classes: Collection[str]) -> tuple[list[Entry], list[Entry]]:
    """Return the class folders, without the single folders around them, and what lies beside them.

    A folder with the name of a known class is one.

    Set aside is what is no photo: a README, a list of check sums. A photo beside the class folders
    stays among them, to be refused.
    """
    beside: list[Entry] = []
    while True:
        beside += [entry for entry in entries if _is_beside(entry)]
        entries = [entry for entry in entries if not _is_beside(entry)]
        tops = {entry.parts[0] for entry in entries}
        depths = {len(entry.parts) for entry in entries if entry.open}
        if len(tops) != 1 or tops <= {*classes} or 1 in depths or max(depths, default=0) < 3:
            return entries, beside
        entries = [Entry(entry.parts[1:], entry.open) for entry in entries if entry.parts[1:]]


def _is_beside(entry: Entry) -> bool:
    return (
        entry.open is not None
        and len(entry.parts) == 1
        and not discovery.looks_like_a_photo(entry.path)
    )


def merged_splits(entries: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Turn SPLIT/CLASS/... into CLASS/SPLIT/..., and set aside what has no class folder.

    The split stays in the path, as splits have files of the same names. A folder of a split in one
    of the same (training_set/training_set) counts once.
    """
    merged, unlabelled = [], []
    for entry in entries:
        split, *below = entry.parts
        part = discovery.split_of(split)
        while below and part and discovery.split_of(below[0]) == part:
            del below[0]
        if part and (len(below) > 1 or (below and not entry.open)):
            merged.append(Entry((below[0], split, *below[1:]), entry.open))
        elif entry.open:
            unlabelled.append(entry)
    return merged, unlabelled
