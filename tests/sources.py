"""Sets that users bring, as a folder or as an archive."""

import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from meadow.commands.importing import import_set
from meadow.errors import MeadowError


def photo(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 12), (number % 256, 80, 160)).save(file, "JPEG")
    return file.getvalue()


ROSE, TULIP = "rose/1.jpg", "tulip/1.jpg"
PHOTOS = {ROSE: photo(1), TULIP: photo(2), "tulip/second walk/2.png": photo(3)}
TWO = {ROSE: photo(1), TULIP: photo(2)}


def in_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def in_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(source: Path, target: Path, **options: Any) -> str:
    """Assert that an import is refused and leaves nothing behind; return what it says."""
    before = sorted(target.parent.rglob("*"))
    with pytest.raises(MeadowError) as error:
        import_set(source, target, **options)
    assert sorted(target.parent.rglob("*")) == before
    return str(error.value)


def patched(archive: Path, central: int, local: int, value: bytes) -> None:
    """Overwrite a header field of the first member, in the central directory and beside it."""
    data = bytearray(archive.read_bytes())
    for start, offset in ((data.index(b"PK\1\2"), central), (data.index(b"PK\3\4"), local)):
        data[start + offset : start + offset + len(value)] = value
    archive.write_bytes(data)
