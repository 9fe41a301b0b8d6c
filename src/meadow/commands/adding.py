"""Bring new photos into a set that is there: each once, and none in the place of another."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from meadow.curation import discovery, names, overrides
from meadow.errors import MeadowError


def add(new: Path, paths: Iterable[str], folder: Path) -> int:
    """Move photos into a set; return how many were not there yet.

    A photo that the set has already, by content and label, is passed over, also one that somebody
    dropped. A name that another photo has is extended by the photo's SHA-256. Whenever the process
    is killed, the next call with the same photos goes on from there.

    Args:
        new: a folder on the same disk.
        paths: of the photos in it; the first part is the label.
        folder: the set that grows.

    Raises:
        MeadowError: the set has a photo under another label; nothing is moved then.

    """
    everything = discovery.find(folder)
    stay, _ = overrides.apply(folder, everything)
    labels = {file.path: file.label for file in stay}
    sizes = defaultdict(list)
    for file in everything:
        sizes[(folder / file.path).stat().st_size].append(file.path)
    moves: dict[str, tuple[str, str]] = {}  # by SHA-256: path and label
    conflicts = []
    for path in paths:
        label, sha256 = path.partition("/")[0], _sha256(new / path)
        alike = sizes[(new / path).stat().st_size]
        same = [known for known in alike if _sha256(folder / known) == sha256]
        conflicts += [known for known in same if labels.get(known, label) != label]
        if not same and moves.setdefault(sha256, (path, label))[1] != label:
            conflicts.append(path)
    if conflicts:
        raise MeadowError(
            f"photos come with another label than they have ({len(conflicts)}):"
            f" {names.listed(conflicts)}. Nothing was added. Leave them out, or decide first:"
            " `meadow review PHOTO --relabel CLASS`."
        )
    for sha256, (path, _) in moves.items():
        target = folder / path
        if target.exists():
            target = target.with_stem(f"{target.stem}-{sha256[:8]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        (new / path).rename(target)
    return len(moves)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
