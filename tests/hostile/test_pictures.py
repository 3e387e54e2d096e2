"""Data sets from strangers: folders, archives, lists and pictures that are not what they say."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from conftest import picture, rows, write_photos
from forked import GIB
from PIL import Image

SMALL = ("--size", 16)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims a size, with one compressed line of zeros in it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(bytes(1 + 3 * min(width, 100))))
        + chunk(b"IEND", b"")
    )


def encoded(mode: str, kind: str, **more) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 36)).save(file, kind, **more)
    return file.getvalue()


PICTURES = {
    "empty": b"",
    "text": b"no picture at all",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) show\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "pdf": b"%PDF-1.4\n",
    "wide bomb": bomb(2_000_000, 1),
    "tall bomb": bomb(1, 2_000_000),
    "large bomb": bomb(60_000, 60_000),
    "no lines": bomb(40, 36),
    "cut": picture(1)[:200],
    "a spoilt TIFF": encoded("RGB", "TIFF", compression="tiff_lzw").replace(b"\x80\x00", b"\xff\xff", 1),
    "a zip": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_are_none(ask, tmp_path, name):
    folder = write_photos(tmp_path / "photos")
    (folder / "3.png").write_bytes(PICTURES[name])
    answer = ask("data", folder, *SMALL, kind="pictures")
    assert "3.png" in answer.err


def rgba_of_16_bits(side: int) -> bytes:
    lines = zlib.compress((b"\0" + np.random.default_rng(0).bytes(8 * side)) * side, 1)
    head = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", lines) + chunk(b"IEND", b"")


def transparent_webp(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGBA", (side, side), (90, 60, 30, 120)).save(file, "WEBP", method=0)
    return file.getvalue() + bytes(side**2 // 400)  # else it would be a bomb


LARGE = {"RGBA of 16 bits": rgba_of_16_bits, "WEBP": transparent_webp}


@pytest.mark.parametrize("kind", LARGE)
def test_the_largest_pictures_are_read_within_a_gigabyte(ask, tmp_path, kind):
    folder = write_photos(tmp_path / "photos")
    data = LARGE[kind](5000)
    for row in rows()[:4]:
        (folder / row["file_name"]).write_bytes(data)
    assert ask("data", folder, *SMALL, kind="large pictures", wanted="accept").memory < GIB


KINDS = (
    *(("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG")),
    *(("CMYK", "JPEG"), ("L", "JPEG"), ("RGB", "WEBP"), ("RGB", "BMP")),
)


@pytest.mark.parametrize(("mode", "kind"), KINDS)
def test_pictures_of_other_kinds_are_read(ask, tmp_path, mode, kind):
    folder = write_photos(tmp_path / "photos")
    (folder / "3.png").write_bytes(encoded(mode, kind))
    ask("data", folder, *SMALL, kind="pictures", wanted="either")


LINES = {
    "empty": b"",
    "no JSON": b"hello\n",
    "a list": b"[]\n",
    "UTF-16": "".join(json.dumps(row) + "\n" for row in rows()).encode("utf-16"),
    "deep": b"[" * 100_000 + b"\n",
    "surrogate": b'{"file_name": "\\ud800.png", "text": "a bird"}\n',
    "no text": b'{"file_name": "0.png"}\n',
    "text of numbers": b'{"file_name": "0.png", "text": [1]}\n',
    "empty text": b'{"file_name": "0.png", "text": ""}\n',
    "outside": b'{"file_name": "../0.png", "text": "a bird"}\n',
    "absolute": b'{"file_name": "/etc/passwd", "text": "a bird"}\n',
    "a long name": json.dumps({"file_name": "x" * 300 + ".png", "text": "a bird"}).encode() + b"\n",
    "a zero in the name": b'{"file_name": "0\\u0000.png", "text": "a bird"}\n',
    "no such split": b'{"file_name": "0.png", "text": "a bird", "split": 7}\n',
    "a label of halves": b'{"file_name": "0.png", "text": "a bird", "class": 1.5}\n',
    "an escape": b'{"file_name": "\\u001b[31m.png", "text": "a bird"}\n',
}


@pytest.mark.parametrize("name", LINES)
def test_lists_that_are_none(ask, tmp_path, name):
    folder = write_photos(tmp_path / "photos")
    (folder / "metadata.jsonl").write_bytes(LINES[name])
    answer = ask("data", folder, *SMALL, kind="lists of pictures")
    assert "\x1b" not in answer.err + answer.out


def test_a_mark_of_byte_order_is_read(ask, tmp_path):
    folder = write_photos(tmp_path / "photos")
    (folder / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + (folder / "metadata.jsonl").read_bytes())
    ask("data", folder, *SMALL, kind="lists of pictures", wanted="accept")


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link"])
def test_files_that_are_none(ask, tmp_path, kind):
    folder = write_photos(tmp_path / "photos")
    path = folder / "metadata.jsonl"
    path.unlink()
    make = {"pipe": os.mkfifo, "folder": os.mkdir}
    make.get(kind, lambda path: os.symlink("/dev/zero" if kind == "device" else "/etc/passwd", path))(path)
    ask("data", folder, *SMALL, kind="odd files")


def test_a_line_of_many_bytes(ask, tmp_path):
    folder = write_photos(tmp_path / "photos")
    with open(folder / "metadata.jsonl", "wb") as file:
        file.write(b'{"file_name": "')
        file.seek(200_000_000)
        file.write(b'"}\n')
    ask("data", folder, *SMALL, kind="odd files")


def archive(path, members, **more):
    with zipfile.ZipFile(path, "w", **more) as file:
        for name, data in members:
            file.writestr(name, data)
    return path


def members():
    text = "".join(json.dumps(row) + "\n" for row in rows())
    return [("metadata.jsonl", text), *((row["file_name"], picture(number)) for number, row in enumerate(rows()))]


ARCHIVES = {
    "twice": lambda path: archive(path, [*members(), ("0.png", picture(7))]),
    "outside": lambda path: archive(path, [*members(), ("../../evil.png", picture(7))]),
    "absolute": lambda path: archive(path, [*members(), ("/tmp/evil.png", picture(7))]),
    "empty": lambda path: archive(path, []),
    "pictures only": lambda path: archive(path, members()[1:]),
    "a bomb": lambda path: archive(path, [("metadata.jsonl", bytes(300_000_000))], compression=zipfile.ZIP_DEFLATED),
    "cut": lambda path: path.write_bytes(archive(path, members()).read_bytes()[:3000]),
    "no zip": lambda path: path.write_bytes(b"PK\x03\x04 and nothing"),
    "other bytes inside": lambda path: path.write_bytes(
        archive(path, members()).read_bytes().replace(b"IHDR", b"XHDR", 4)
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_are_none(ask, tmp_path, name):
    ARCHIVES[name](tmp_path / "photos.zip")
    ask("data", tmp_path / "photos.zip", *SMALL, kind="archives")


@pytest.mark.parametrize("seed", range(12))
def test_random_bytes_in_an_archive(ask, tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(archive(tmp_path / "photos.zip", members()).read_bytes())
    for place in rng.integers(0, len(data), 4):
        data[place] ^= 1 << int(rng.integers(8))
    (tmp_path / "photos.zip").write_bytes(data)
    ask("data", tmp_path / "photos.zip", *SMALL, kind="archives", wanted="either")


@pytest.fixture
def packed(photos, tmp_path):
    """A packed set of these pictures, to be spoilt."""
    from t2ilib.data import captioned
    from t2ilib.data.importers.folder import import_folder

    captioned.pack(import_folder(photos, 16), tmp_path / "packed")
    return tmp_path / "packed"


SPOILT = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "text": lambda path: path.write_bytes(b"hello\n" * 20),
    "gone": lambda path: path.unlink(),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "objects": lambda path: np.save(path.open("wb"), np.array([{}], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("damage", SPOILT)
@pytest.mark.parametrize("number", range(3))
def test_packed_sets_that_are_none(ask, packed, damage, number):
    files = sorted(path for path in packed.iterdir() if path.is_file())
    SPOILT[damage](files[number])
    ask("data", packed, *SMALL, kind="packed sets")


def test_what_all_of_these_were_made_from_is_accepted(ask, photos, packed, tmp_path):
    ask("data", photos, *SMALL, kind="pictures", wanted="accept")
    ask("data", packed, *SMALL, kind="packed sets", wanted="accept")
    ask("data", archive(tmp_path / "photos.zip", members()), *SMALL, kind="archives", wanted="accept")
