"""Names in archives that do not say in which encoding they are."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from meadow.commands.zip_names import decoded
from meadow.errors import MeadowError

ARCHIVE = Path("mine.zip")


def members(*names: bytes, extra: bytes = b"") -> list[zipfile.ZipInfo]:
    """Pack files under these bytes as names, without a word about their encoding; list them."""
    file = io.BytesIO()
    stand_ins = [f"{number:0{len(name)}}".encode() for number, name in enumerate(names)]
    with zipfile.ZipFile(file, "w") as archive:
        for stand_in in stand_ins:
            member = zipfile.ZipInfo(stand_in.decode())
            member.extra = extra
            archive.writestr(member, b"x")
    data = file.getvalue()
    for name, stand_in in zip(names, stand_ins, strict=True):
        data = data.replace(stand_in, name)
    return zipfile.ZipFile(io.BytesIO(data)).infolist()


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("タンポポの写真/1.jpg", "cp932"),
        ("蒲公英的照片/1.jpg", "gbk"),
        ("蒲公英的照片/1.jpg", "big5"),
        ("민들레사진/1.jpg", "cp949"),
        ("одуванчик/1.jpg", "cp866"),
        ("Löwenzahn/1.jpg", "cp850"),
    ],
)
def test_a_class_gets_its_name_or_the_user_is_asked(name: str, encoding: str) -> None:
    """Never a garbled one; the right guess is among those that are shown, and can be given."""
    found = members(name.encode(encoding), b"rose/00002.jpg")
    assert decoded(ARCHIVE, found, encoding) == [name, "rose/00002.jpg"]
    try:
        assert decoded(ARCHIVE, found, None) == [name, "rose/00002.jpg"]
    except MeadowError as error:
        label = name.partition("/")[0]
        assert f"--encoding {encoding}: {label!r}" in str(error)  # noqa: PT017  # or no error


def test_what_is_sure_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """A guess that stands alone is taken, as with German umlauts, and can be objected to."""
    name = "Löwenzahn/Wiese.jpg"
    assert decoded(ARCHIVE, members(name.encode("cp437")), None) == [name]
    assert "names are read as cp437: 'Löwenzahn'" in capsys.readouterr().err


def test_what_is_unsure_is_asked() -> None:
    """Japanese bytes are Chinese ones too."""
    with pytest.raises(MeadowError) as caught:
        decoded(ARCHIVE, members("タンポポ/1.jpg".encode("cp932")), None)
    assert "--encoding cp932: 'タンポポ'" in str(caught.value)
    assert "--encoding gbk: '僞儞億億'" in str(caught.value)


def test_utf8_needs_no_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """The macOS Finder does not set it."""
    name = "Lo\u0308wenzahn/1.jpg"
    assert decoded(ARCHIVE, members(name.encode(), b"rose/1.jpg"), None) == [name, "rose/1.jpg"]
    assert capsys.readouterr().err == ""


def test_a_name_that_is_given_twice() -> None:
    """Info-ZIP and 7-Zip add the name in UTF-8; it counts if it belongs to the other."""
    legacy, name = "одуванчик/1.jpg".encode("cp866"), "одуванчик/1.jpg"
    for check, expected in ((zlib.crc32(legacy), name), (0, legacy.decode("cp437"))):
        body = struct.pack("<BI", 1, check) + name.encode()
        extra = struct.pack("<HH", 0x7075, len(body)) + body
        assert decoded(ARCHIVE, members(legacy, extra=extra), "cp437") == [expected]


def test_an_encoding_that_does_not_fit() -> None:
    """Unknown, or not that of the names."""
    found = members("タンポポ/1.jpg".encode("cp932"))
    with pytest.raises(MeadowError, match="there is no encoding 'klingon'"):
        decoded(ARCHIVE, found, "klingon")
    with pytest.raises(MeadowError, match="is not in 'ascii'"):
        decoded(ARCHIVE, found, "ascii")
