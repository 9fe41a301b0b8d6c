"""What operating systems and tools leave among photos: never read, imported or versioned."""

import re
from fnmatch import translate

# As in .gitignore, names of files and of folders with all below; .dvcignore has the same lines.
LITTER = (
    ".*",
    "*~",
    "*.part",
    "*.crdownload",
    "__pycache__",
    "__MACOSX",
    "Icon[!!-~]",  # macOS: the fifth character is a carriage return
    "[Tt]humbs.db",
    "[Dd]esktop.ini",
    "$[Rr][Ee][Cc][Yy][Cc][Ll][Ee].[Bb][Ii][Nn]",
    "System Volume Information",
    "lost+found",
    "@eaDir",  # Synology's thumbnails
    "[#@][Rr]ecycle",
)
_PATTERN = re.compile("|".join(map(translate, LITTER)))


def is_litter(name: str) -> bool:
    """Tell whether a file or folder of this name is passed over."""
    return _PATTERN.match(name) is not None
