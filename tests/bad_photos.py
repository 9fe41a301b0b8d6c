"""Photos and requests that a service meets in the wild, made by program, with the right answer."""

import base64
import gzip
import io
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from toys import encoded, photo

GOOD = encoded(photo(1))
PNG = encoded(photo(1), "PNG")
WEBP = encoded(photo(1), "WEBP", quality=80)
# Drawn with pillow-heif: a white photo, red at the upper left, turned by its EXIF.
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAZVtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAA"
    "AAAAAAAAAAADRpbG9jAAAAAERAAAIAAQAAAAABuQABAAAAAAAAAFcAAgAAAAACEAABAAAAAAAAACQAAAA4aWluZgAA"
    "AAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA1Glwcn"
    "AAAAC1aXBjbwAAAHhodmNDAQNwAAAAAAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroC"
    "QGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCSBRZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2"
    "xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABIAAAAUAAAAA5waXhpAAAAAAEIAAAAF2lwbWEAAAAAAAAAAQABBIEC"
    "AwQAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAINtZGF0AAAAUygBr1iHBxgAxUyS//+c7v/8qPSH2JMEk2Yv3U"
    "OEa/KjVznlaF1BQ/eTB1k8MvKU10tXU6pWLtyZs+739/nPeGNFpEc+mjO+ZlRKyTD4AAAuiGvuAAAABkV4aWYAAE1N"
    "ACoAAAAIAAEBEgADAAAAAQAGAAAAAAAA"
)
HEIC_OF_NO_WIDTH = HEIC.replace(b"\xa0\x24\x81\x45", b"\xff\xff\xff\xff", 1)
# pi-heif 1.4.0 ends the process over it
HEIC_OF_NO_TEXT = HEIC.replace(b"\0\2\0\0Exif", b"\0\2\0\0Exi\x87")
AVIF, TIFF, GIF = (encoded(photo(1), kind) for kind in ("AVIF", "TIFF", "GIF"))
FORMAT, DAMAGED, LARGE, MALFORMED = 415, 422, 413, 400


def files() -> dict[str, tuple[bytes, int]]:
    """Return files by name, each with the status that it gets by either door."""
    return {
        **{name: (data, 200) for name, data in odd_but_good()},
        **{name: (data, FORMAT) for name, data in no_photos()},
        **{name: (data, DAMAGED) for name, data in damaged()},
        **{name: (data, LARGE) for name, data in bombs()},
    }


def odd_but_good() -> Iterator[tuple[str, bytes]]:
    """Yield photos that look wrong to a careless reader."""
    image = photo(3)
    yield "progressive", encoded(image, progressive=True)
    yield "grey", encoded(image.convert("L"))
    yield "cmyk", encoded(image.convert("CMYK"))
    yield "one bit", encoded(image.convert("1"), "PNG")
    yield "palette", encoded(image.convert("P"), "PNG")
    yield "palette, transparent", encoded(image.convert("P"), "PNG", transparency=3)
    yield "alpha", encoded(image.convert("RGBA"), "PNG")
    yield "grey with alpha", encoded(image.convert("LA"), "PNG")
    grey = np.asarray(image.convert("L")).astype(np.uint16) * 257
    yield "16 bits", encoded(Image.fromarray(grey), "PNG")
    yield "lossless webp", encoded(image, "WEBP", lossless=True)
    more = {"save_all": True, "append_images": [photo(4)]}
    yield "animated webp", encoded(image, "WEBP", **more)
    yield "animated png", encoded(image, "PNG", **more)
    yield "two photos in one", encoded(image, "MPO", **more)
    yield "smallest", encoded(image.resize((8, 8)), "PNG")
    yield "long and thin", encoded(image.resize((4000, 8)))
    yield "bytes behind the end", GOOD + b"\0" * 1000
    yield "a zip behind the end", GOOD + _zipped(GOOD)
    yield "garbled exif", encoded(image, exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    yield "an unknown orientation", encoded(image, exif=_oriented(99))
    yield "garbled colour profile", encoded(image, icc_profile=b"\xff" * 500)
    for kind in ("AVIF", "TIFF", "GIF", "BMP"):
        yield kind, encoded(image, kind)
    yield "heic", HEIC
    yield "a long text", PNG[:33] + _text_bomb(2) + PNG[33:]
    yield "a text bomb", PNG[:33] + _text_bomb(20) * 50 + PNG[33:]
    yield "a long colour profile", encoded(image, "PNG", icc_profile=bytes(2_000_000))
    large = Image.new("L", (9000, 6500), 90)
    yield "58 megapixels that are read in reduced size", encoded(large, quality=5)
    yield "a long comment", encoded(image, comment=b"<script>" * 8000)


def no_photos() -> Iterator[tuple[str, bytes]]:
    """Yield what is of no format that is read, whatever it says it is."""
    image = photo(2)
    yield "empty", b""
    yield "one byte", b"\xff"
    yield "half a signature", b"\xff\xd8"
    yield "text", b"hello"
    yield "a url", b"http://127.0.0.1:1/photo.jpg"
    yield "a file url", b"file:///etc/passwd"
    yield "json", b'{"url": "http://127.0.0.1:1/photo.jpg"}'
    yield "html", b"<!doctype html><img src=photo.jpg>"
    yield "svg", b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='99' height='99'/></svg>"
    bomb = "".join(f"<!ENTITY a{i + 1} '&a{i};&a{i};'>" for i in range(30))
    yield "xml bomb", f"<!DOCTYPE x [<!ENTITY a0 'ha'>{bomb}]><x>&a30;</x>".encode()
    for kind in ("ICO", "PPM", "TGA", "PDF", "EPS", "JPEG2000", "DDS", "SGI"):
        yield kind, encoded(image, kind)
    yield "jpeg xl", b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0" * 200
    yield "photoshop", b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 72, 72, 8, 3)
    yield "fits", b"SIMPLE  =                    T".ljust(2880)
    yield "mp4", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + b"\0" * 200
    yield "sound", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + b"\0" * 60
    yield "video", b"RIFF\x24\0\0\0AVI LIST\x10\0\0\0" + b"\0" * 60
    yield "zip", _zipped(GOOD)
    yield "gzip of a photo", gzip.compress(GOOD, mtime=0)
    yield "base64 of a photo", base64.b64encode(GOOD)
    yield "data url of a photo", b"data:image/jpeg;base64," + base64.b64encode(GOOD)
    yield "pickle", pickle.dumps({"file": GOOD})
    yield "program", b"\x7fELF\2\1\1" + b"\0" * 200
    yield "zeros", bytes(5000)
    yield "noise", b"\0" + random.Random(0).randbytes(5000)
    yield "a line before the photo", b"\r\n" + GOOD
    yield "text mode upload of png", PNG.replace(b"\r\n", b"\n", 1)
    yield "photo from its end", GOOD[::-1]
    yield "utf-16", "photo".encode("utf-16")


def damaged() -> Iterator[tuple[str, bytes]]:
    """Yield photos of which something is missing or wrong."""
    for name, data in (("jpeg", GOOD), ("png", PNG), ("webp", WEBP)):
        for share in (0.05, 0.25, 0.5, 0.9):
            yield f"{name}, {share:.0%} of it", data[: int(share * len(data))]
        side = encoded(Image.new("RGB", (7, 400)), name.upper())
        yield f"{name} too narrow", side
        yield f"{name} of one pixel", encoded(Image.new("RGB", (1, 1)), name.upper())
    yield "jpeg signature alone", b"\xff\xd8\xff"
    yield "jpeg start and end", b"\xff\xd8\xff\xd9"
    yield "jpeg without pixels", GOOD[: GOOD.index(b"\xff\xda")] + b"\xff\xd9"
    yield "jpeg without tables", _without(GOOD, b"\xff\xdb")
    frame = GOOD.index(b"\xff\xc0")
    yield "jpeg of no height", GOOD[: frame + 5] + b"\0\0" + GOOD[frame + 7 :]
    yield "jpeg of 9 components", GOOD[: frame + 9] + b"\x09" + GOOD[frame + 10 :]
    yield "jpeg segment past the end", b"\xff\xd8\xff\xe1\xff\xff" + GOOD[2:200]
    yield "png signature alone", PNG[:8]
    header, end = PNG[8:33], _chunk(b"IEND", b"")
    yield "png without header", PNG[:8] + end
    yield "png without pixels", PNG[:8] + header + end
    yield "png wrong checksum", PNG[:29] + b"\0\0\0\0" + PNG[33:]
    yield "png pixels not zlib", PNG[:8] + header + _chunk(b"IDAT", b"\xff" * 500) + end
    yield "png too few pixels", PNG[:8] + header + _chunk(b"IDAT", zlib.compress(b"\0" * 9)) + end
    yield "png of no width", _png(0, 10)
    yield "png of colour type 7", _png(64, 64, colour=7)
    yield "png of 3 bits", _png(64, 64, depth=3)
    yield "png chunk past the end", PNG[:8] + header + b"\x7f\xff\xff\xffIDAT" + PNG[50:]
    yield "avif without content", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + b"\0" * 200
    yield "heic without content", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200
    yield "half of a heic", HEIC[: len(HEIC) // 2]
    yield "heic of no width", HEIC_OF_NO_WIDTH
    yield "heic of no text", HEIC_OF_NO_TEXT
    yield "bmp without pixels", encoded(photo(1), "BMP")[:60]
    yield "tiff without pixels", encoded(photo(1), "TIFF")[:100]
    yield "webp signature alone", b"RIFF\x04\0\0\0WEBP"
    yield "webp of garbage", WEBP[:20] + b"\xff" * 300
    yield "webp unknown chunk", WEBP[:12] + b"XXXX" + WEBP[16:]


def bombs() -> Iterator[tuple[str, bytes]]:
    """Yield small files that would be large in memory."""
    yield "81 megapixels in 10 kB", encoded(Image.new("1", (9000, 9000)), "PNG")
    yield "196 megapixels", encoded(Image.new("1", (14000, 14000)), "PNG")
    yield "a png that says 4 gigapixels", _png(65000, 65000)
    yield "a png that says the largest", _png(2**31 - 1, 2**31 - 1)
    frame = GOOD.index(b"\xff\xc0")
    size = struct.pack(">HH", 65500, 65500)
    yield "a jpeg that says 4 gigapixels", GOOD[: frame + 5] + size + GOOD[frame + 9 :]
    gradual = Image.new("L", (9000, 6500), 90)
    yield "58 megapixels that cannot be reduced", encoded(gradual, quality=5, progressive=True)
    yield "67 megapixels, 8 high", encoded(Image.new("1", (2**23, 8)), "PNG")


@dataclass(frozen=True)
class Call:
    """A request that is not just a bad file."""

    name: str
    status: int
    method: str = "POST"
    path: str = "/predict"
    body: bytes = GOOD
    headers: dict[str, str] = field(default_factory=dict)


def calls(max_body: int) -> Iterator[Call]:
    """Yield requests that are wrong around the photo; `max_body` is the limit in bytes."""
    for kind in (
        "image/png",
        "image/jpg",
        "text/plain",
        "application/json",
        "x",
        "",
        "a/b; c=" * 9,
    ):
        yield Call(f"a photo said to be {kind!r}", 200, headers={"Content-Type": kind})
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD"):
        yield Call(f"{method} /predict", 405, method)
    for path in (
        "/nothing",
        "/predict/x",
        "/..%2f..%2fetc/passwd",
        "/%00",
        "/%ff",
        "/" + "a" * 5000,
    ):
        yield Call(f"GET {path[:30]}", 404, "GET", path)
    yield Call("POST /nothing", 404, path="/nothing")
    pickled = {"Content-Type": "application/vnd.bentoml+pickle"}
    yield Call("a pickle", FORMAT, body=b"cos\nsystem\n(S'true'\ntR.", headers=pickled)
    yield Call("a body over the limit", LARGE, body=GOOD + bytes(max_body))
    yield Call("a multipart body over the limit", LARGE, body=part(GOOD + bytes(max_body)),
               headers=MULTIPART)  # fmt: skip
    for name, body in malformed():
        yield Call(name, MALFORMED, body=body, headers=MULTIPART)
    for name, kind in (("no boundary", ""), ("an empty boundary", "; boundary="),
                       ("another boundary", "; boundary=c")):  # fmt: skip
        yield Call(name, MALFORMED, body=part(GOOD),
                   headers={"Content-Type": f"multipart/form-data{kind}"})  # fmt: skip
    for name, disposition in (
        ("a path for a name", 'name="file"; filename="../../../etc/passwd"'),
        ("a null in the name", 'name="file"; filename="a\0b.jpg"'),
        ("no extension", 'name="file"; filename="x"'),
        ("a name in another script", 'name="file"; filename="蒲公英.jpg"'),
        ("a very long name", f'name="file"; filename="{"a" * 3000}.jpg"'),
    ):
        yield Call(name, 200, body=part(GOOD, disposition), headers=MULTIPART)


MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


def malformed() -> Iterator[tuple[str, bytes]]:
    """Yield multipart bodies, of boundary `b`, that hold no photo in the field `file`."""
    whole = part(GOOD)
    yield "a photo that says it is multipart", GOOD
    yield "an empty multipart body", b""
    yield "a boundary alone", b"--b\r\n"
    yield "an end alone", b"--b--\r\n"
    yield "another field", part(GOOD, 'name="photo"; filename="x.jpg"')
    yield "a field without a name", part(GOOD, 'filename="x.jpg"')
    yield "a text field", part(b"text", 'name="file"')
    yield "a url in a text field", part(b"http://127.0.0.1:1/x.jpg", 'name="file"')
    # RFC 7578 forbids filename*; without a filename it is a text field
    yield "an encoded name alone", part(GOOD, "name=\"file\"; filename*=UTF-8''x.jpg")
    yield "two photos", whole[: -len(b"--b--\r\n")] + whole
    yield "many fields", b"".join(part(b"1", f'name="f{i}"')[:-7] for i in range(50)) + whole
    yield "no disposition", b"--b\r\nContent-Type: image/jpeg\r\n\r\n" + GOOD + b"\r\n--b--\r\n"
    yield (
        "a header without a colon",
        b"--b\r\nContent-Disposition\r\n\r\n" + GOOD + b"\r\n--b--\r\n",
    )
    yield "a header without an end", b"--b\r\nContent-Disposition: " + b"x" * 50000


def part(data: bytes, disposition: str = 'name="file"; filename="x.jpg"') -> bytes:
    """Return a multipart body, of boundary `b`, with one field."""
    head = f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n"
    return head.encode() + data + b"\r\n--b--\r\n"


def mutated(number: int) -> bytes:
    """Return a good photo with some bytes changed, cut out or doubled; each number another."""
    chance = random.Random(number)
    data = bytearray(chance.choice((GOOD, PNG, WEBP, HEIC, AVIF, TIFF, GIF)))
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = int(len(data) * chance.random() ** chance.choice((1, 2)))  # headers more often
        length = chance.randrange(1, 40)
        deed = chance.randrange(6)
        if deed == 0:
            data[at : at + 1] = chance.randbytes(1)
        elif deed == 1 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif deed == 2:
            del data[at : at + length]
        elif deed == 3:
            data[at:at] = data[at : at + length]
        elif deed == 4:
            data[at : at + 4] = chance.choice((b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff"))
        else:
            del data[max(at, 1) :]
    return bytes(data)


def _zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("photo.jpg"), data)
    return file.getvalue()


def _oriented(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def _without(data: bytes, marker: bytes) -> bytes:
    """Take the segments of one kind out of a JPEG."""
    while (at := data.find(marker)) >= 0:
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        data = data[:at] + data[at + 2 + length :]
    return data


def _chunk(kind: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check


def _png(width: int, height: int, *, depth: int = 8, colour: int = 2) -> bytes:
    """Return a small PNG that says what is asked of it."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = zlib.compress(bytes(100_000))
    return PNG[:8] + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _text_bomb(megabytes: int) -> bytes:
    return _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(megabytes * 2**20), 9))
