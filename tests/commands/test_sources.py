"""What is read of a folder or an archive, and what is refused before anything is written."""

import os
import stat
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sources import PHOTOS, ROSE, TULIP, TWO, contents, in_folder, in_zip, patched, photo, refused

from meadow.commands.importing import import_set
from meadow.errors import MeadowError


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "data" / "raw"


def test_no_source(tmp_path: Path, target: Path) -> None:
    """What is neither a folder nor an archive is refused in words, whatever its name says."""
    assert "there is no" in refused(tmp_path / "absent", target)
    (tmp_path / "photos.zip").write_bytes(photo())
    assert "no .zip file, or a damaged one" in refused(tmp_path / "photos.zip", target)
    os.mkfifo(tmp_path / "pipe")
    assert "neither a folder nor a .zip file" in refused(tmp_path / "pipe", target)


def test_links_inside_are_followed(tmp_path: Path, target: Path) -> None:
    """A link to a file or a folder of the source arrives as what it leads to."""
    mine = in_folder(tmp_path / "mine", TWO | {".store/3.jpg": photo(3)})
    (mine / "rose/3.jpg").symlink_to("../.store/3.jpg")
    (mine / "daisy").symlink_to("tulip")
    import_set(mine, target)
    assert contents(target) == TWO | {"rose/3.jpg": photo(3), "daisy/1.jpg": photo(2)}
    assert not any(path.is_symlink() for path in target.rglob("*"))


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("/etc/passwd", "leads out of"),
        ("../../mine2", "leads out of"),
        ("../..", "leads out of"),
        ("..", "leads round in a circle"),
        ("absent.jpg", "leads nowhere"),
        ("link", "leads nowhere"),
    ],
)
def test_links_that_lead_out(link: str, message: str, tmp_path: Path, target: Path) -> None:
    """A link out of the source, into nothing or round in a circle is refused by name."""
    mine = in_folder(tmp_path / "mine", TWO)
    in_folder(tmp_path / "mine2", TWO)
    (mine / "rose/link").symlink_to(link)
    assert f"rose/link' {message}" in refused(mine, target)


def test_a_pipe_in_a_folder(tmp_path: Path, target: Path) -> None:
    """What is no regular file is named, never opened: a pipe would be waited for."""
    mine = in_folder(tmp_path / "mine", TWO)
    os.mkfifo(mine / "rose/pipe")
    assert "rose/pipe' is not a regular file" in refused(mine, target)


@pytest.mark.parametrize(
    "name",
    [
        *("../1.jpg", "rose/../../1.jpg", "..", "/etc/1.jpg", "//server/1.jpg", "C:/1.jpg"),
        *("c:1.jpg", "..\\1.jpg", "\\1.jpg", "rose/a\\..\\..\\1.jpg", "rose/1.jpg\0.exe"),
        *("../.hidden", "__MACOSX/../../1.jpg"),
    ],
)
def test_unsafe_names(name: str, tmp_path: Path, target: Path) -> None:
    """A name that could lead out of the target, on any system, refuses the whole archive."""
    info = zipfile.ZipInfo("x")
    info.filename = name
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr(info, photo())
        archive.writestr(TULIP, photo())
    assert repr(name) in refused(tmp_path / "evil.zip", target)
    assert not (tmp_path / "1.jpg").exists()


def test_a_link_in_an_archive(tmp_path: Path, target: Path) -> None:
    """A member that unpackers would turn into a link is refused."""
    info = zipfile.ZipInfo("rose/link.jpg")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    in_zip(tmp_path / "mine.zip", TWO)
    with zipfile.ZipFile(tmp_path / "mine.zip", "a") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "'rose/link.jpg': a link" in refused(tmp_path / "mine.zip", target)


def test_an_encrypted_archive(tmp_path: Path, target: Path) -> None:
    """An encrypted member is named, with the way round it."""
    archive = in_zip(tmp_path / "mine.zip", TWO)
    patched(archive, 8, 6, b"\1\0")
    assert "'rose/1.jpg': encrypted. Unpack it" in refused(archive, target)


def test_an_unknown_compression(tmp_path: Path, target: Path) -> None:
    """A method that Python cannot unpack is said in words."""
    archive = in_zip(tmp_path / "mine.zip", TWO)
    patched(archive, 10, 8, b"\x09\0")  # deflate64, as Windows writes for large files
    assert "'rose/1.jpg' cannot be read" in refused(archive, target)


def test_all_that_keeps_an_archive_from_being_unpacked_is_said(
    tmp_path: Path, target: Path
) -> None:
    """Who packs a large set anew wants to do so once."""
    link = zipfile.ZipInfo("rose/link.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for name in (link, "../1.jpg", "/2.jpg"):
            archive.writestr(name, b"x")
    message = refused(tmp_path / "mine.zip", target)
    assert "'rose/link.jpg': a link" in message
    assert "'../1.jpg', '/2.jpg': could lead out" in message


def test_backslashes_of_powershell(tmp_path: Path, target: Path) -> None:
    """PowerShell 5.1 writes them between folders, and folders of their own."""
    archive = in_zip(tmp_path / "mine.zip", {"flowers": b""})
    with zipfile.ZipFile(archive, "w") as packed:
        for name in ("rose\\", *PHOTOS):
            member = zipfile.ZipInfo("x")
            member.filename = name.replace("/", "\\")
            packed.writestr(member, PHOTOS.get(name, b""))
    import_set(archive, target)
    assert contents(target) == PHOTOS


def test_any_damage_is_an_error_in_words(tmp_path: Path, target: Path) -> None:
    """Wherever bytes are wrong or missing: an import works or is refused, and never breaks down."""
    archive = in_zip(tmp_path / "mine.zip", {ROSE: b"rose" * 9, TULIP: b"tulip" * 9})
    data = archive.read_bytes()

    def attempt(damaged: bytes) -> Any:
        archive.write_bytes(damaged)
        try:
            import_set(archive, target)
        except MeadowError as error:
            return str(error)
        return contents(target)

    for at in range(0, len(data), 2):
        assert attempt(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
    for length in range(0, len(data), 16):
        assert attempt(data[:length])
