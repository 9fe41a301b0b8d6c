"""Names of files and folders: those that Linux, macOS and Windows can all hold."""

import os
import re
import unicodedata
from collections.abc import Collection, Iterable
from pathlib import Path

from meadow.errors import MeadowError

MAX_NAME = 255  # bytes of one name: the limit of ext4, APFS and NTFS
MAX_PATH = 1000  # bytes of a path in the set; the whole of it may have 1024 on macOS
LISTED = 20  # names in the message
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)  # of Windows


def check(source: object, paths: Iterable[str]) -> None:
    """Check the names of all files of a set.

    Args:
        source: the set, for the message.
        paths: of the files, relative to it, with forward slashes.

    Raises:
        MeadowError: some names cannot be held everywhere, or two of them not beside one another;
            all of them are named.

    """
    faults: dict[str, None] = {}  # each once, in order
    folders: dict[str, str] = {}
    files: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        faults |= {f"{printable(name)} {why}": None for name in parts if (why := fault(name))}
        if len(os.fsencode(path)) > MAX_PATH:
            faults[f"{printable(path[:80])}... is too long: over {MAX_PATH} bytes"] = None
        above = ["/".join(parts[:depth]) for depth in range(1, len(parts))]
        for folder in above:
            if (other := folders.setdefault(_key(folder), folder)) != folder:
                faults[_twins(other, folder)] = None
        # Of folders that are twins the files are not named, too.
        if (twin := files.get(_key(path))) and Path(twin).parent == Path(path).parent:
            faults[_twins(twin, path)] = None
        files[_key(path)] = path
    faults |= {_twins(files[key], folders[key]): None for key in files.keys() & folders.keys()}
    if faults:
        lines = [f"  {line}" for line in faults]
        if len(lines) > LISTED:
            lines[LISTED:] = [f"  ... and {len(lines) - LISTED} more"]
        raise MeadowError(
            f"{source} has names that Linux, macOS and Windows cannot all hold:\n"
            + "\n".join(lines)
            + "\nRename or remove these files and folders, then run this again."
        )


def printable(name: str) -> str:
    """Quote a name from outside, so that newlines and broken bytes cannot garble a terminal."""
    return repr(name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))


def listed(paths: Collection[str]) -> str:
    """Return the first of some names, sorted and quoted."""
    first = sorted(paths)[:LISTED]
    return ", ".join(map(printable, first)) + ", ..." * (len(paths) > len(first))


def fault(name: str) -> str | None:
    """Return what keeps a system from holding a file or folder of this name."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return "is not UTF-8"
    if length > MAX_NAME:
        return f"is too long: over {MAX_NAME} bytes"
    if not name:
        return "is empty"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "has a control character"
    if forbidden := sorted(set('<>:"|?*\\') & set(name)):
        return f"has {' '.join(forbidden)}"
    if name.endswith((" ", ".")):
        return "ends with a space or a dot"
    if DEVICE.fullmatch(name):
        return "is a device of Windows"
    return None


def _key(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _twins(one: str, other: str) -> str:
    if one == other:
        return f"{printable(one)} is there twice"
    if unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other):
        # They look alike: the code points tell them apart.
        return f"{one!a} and {other!a} are one name, composed and decomposed (NFC, NFD)"
    return f"{printable(one)} and {printable(other)} differ in case alone"
