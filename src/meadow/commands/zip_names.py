"""Names in a .zip file: in UTF-8, or in the code page of whoever packed it, which it does not say.

Only the flag of a member says UTF-8; without it the format says code page 437, but Windows writes
its own code page, and the macOS Finder UTF-8.
"""

import struct
import sys
import unicodedata
import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipInfo

from charset_normalizer import from_bytes

from meadow.curation import names
from meadow.errors import MeadowError

# Of Windows and DOS: Western and Central Europe, Cyrillic, Greek, Turkish, Japan, China, Taiwan,
# Korea
CODE_PAGES = ["cp437", "cp850", "cp1252", "cp852", "cp1250", "cp866", "cp1251", "cp737", "cp1253"]
CODE_PAGES += ["cp857", "cp1254", "cp932", "gbk", "big5", "cp949"]
UTF8, UNICODE_PATH = 0x800, 0x7075  # flag of a member; extra field with its name in UTF-8
ALPHABETS = {"LATIN", "GREEK", "CYRILLIC"}
SHOWN = 5  # names that show what a guess gives
ENOUGH = 200  # names to guess from


def decoded(source: Path, members: Sequence[ZipInfo], encoding: str | None) -> list[str]:
    """Return the name of each member.

    Args:
        source: the archive, for the messages.
        members: as opened without `metadata_encoding`.
        encoding: of the names that are not marked as UTF-8; None: it is found.

    Raises:
        MeadowError: several encodings could be meant, or names are not in the one that is given.

    """
    texts = [_marked(member) for member in members]
    raw = [m.orig_filename.encode("cp437") for m in members if _marked(m) is None]
    encoding = encoding or _guess(source, raw)
    try:
        unmarked = iter([name.decode(encoding) for name in raw])
    except LookupError:
        raise MeadowError(
            f"there is no encoding {encoding!r}. Python's names are taken: {', '.join(CODE_PAGES)},"
            " utf-8, ..."
        ) from None
    except UnicodeDecodeError as error:
        raise MeadowError(
            f"{source}: the name {error.object!r} is not in {encoding!r}. Give another --encoding,"
            " or none to see guesses."
        ) from None
    return [next(unmarked) if text is None else text for text in texts]


def _marked(member: ZipInfo) -> str | None:
    """Return a name that is marked as UTF-8."""
    if member.flag_bits & UTF8:
        return member.orig_filename
    extra = member.extra
    while len(extra) >= 9:
        kind, length = struct.unpack_from("<HH", extra)
        (check,) = struct.unpack_from("<I", extra, 5)
        if kind == UNICODE_PATH and check == zlib.crc32(member.orig_filename.encode("cp437")):
            return extra[9 : 4 + length].decode("utf-8", "replace")
        extra = extra[4 + length :]
    return None


def _guess(source: Path, raw: Sequence[bytes]) -> str:
    parts = sorted({part for path in raw for part in path.split(b"/") if not part.isascii()})
    try:
        b"\n".join(parts).decode()
    except UnicodeDecodeError:
        pass
    else:
        return "utf-8"
    matches = from_bytes(b"\n".join(parts[:ENOUGH]), cp_isolation=CODE_PAGES)
    guesses = {match.encoding: str(match).split("\n") for match in matches}
    shown = {
        name: ", ".join(map(repr, texts[:SHOWN]))
        for name, texts in guesses.items()
        if all(map(_may_be, texts))
    }
    if len(shown) == 1:
        ((encoding, text),) = shown.items()
        print(f"names are read as {encoding}: {text}; if not so, give --encoding", file=sys.stderr)
        return encoding
    lines = [f"  --encoding {encoding}: {text}" for encoding, text in shown.items()]
    raise MeadowError(
        f"{source} does not say in which encoding its names are. Run this again with the one that"
        " reads well:\n" + "\n".join(lines or [f"  --encoding {' or '.join(CODE_PAGES)}"])
    )


def _may_be(name: str) -> bool:
    """Tell whether a file may be called so: of what is not ASCII letters alone, of one alphabet."""
    letters = [c for c in name if c.isalpha()]
    alphabets = {unicodedata.name(c, "").split()[0] for c in letters} & ALPHABETS
    symbols = [c for c in name if not c.isascii() and unicodedata.category(c)[0] not in "LMN"]
    return not symbols and len(alphabets) < 2 and names.fault(name) is None
