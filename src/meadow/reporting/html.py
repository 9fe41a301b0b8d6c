"""Pages of HTML that are one file: no script, nothing from elsewhere, the same bytes every time.

`templates/` has the words and the markup of the pages; whatever a template prints is escaped.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from meadow.pipeline.image import PhotoError, decode

SIDE = 176  # px, longest side of a thumbnail
QUALITY = 80


@dataclass(frozen=True)
class Table:
    """Texts in rows, the first of which names a row."""

    name: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A thumbnail: a JPEG in base64, "" where there is no photo, its size in pixels, its words."""

    data: str
    width: int
    height: int
    alternative: str
    caption: str

    @classmethod
    def of(cls, photo: bytes | None, label: str, caption: str) -> "Picture":
        """Make the thumbnail of a photo's file.

        Args:
            photo: the file's bytes; None, or what is no photo, gives words instead of a picture.
            label: of the photo.
            caption: below it; its lines are kept.

        """
        try:
            small = thumbnail(photo, SIDE) if photo else None
        except PhotoError:  # another Pillow could read it
            small = None
        if small is None:
            return cls("", 0, 0, "", caption)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=QUALITY, optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        return cls(data, small.width, small.height, f"photo labelled {label}", caption)


def thumbnail(photo: bytes, side: int) -> Image.Image:
    """Decode the bytes of a photo to a small picture; no side is longer than `side` pixels.

    Raises:
        PhotoError: see `decode`.

    """
    image = decode(photo, at_least=2 * side)
    image.thumbnail((side, side))
    return image


def render(template: str, **values: object) -> str:
    """Return a page of `templates/`, filled in."""
    return ENVIRONMENT.get_template(template).render(values)


def printable(value: object) -> object:
    """Return a text without what cannot be printed, such as a change of the writing direction."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in value)


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    finalize=printable,
)
