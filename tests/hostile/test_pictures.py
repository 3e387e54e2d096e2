"""Data sets from strangers: folders, archives, lists and pictures that are not what they say."""

import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from .conftest import picture, rows, write_photos
from .forked import GIB

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


def encoded(mode: str, kind: str, size: tuple[int, int] = (40, 36), **more) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size).save(file, kind, **more)
    return file.getvalue()


def hidden_scans(side: int, blocks: int) -> bytes:
    """A progressive JPEG of a few hundred kilobytes whose many scans look like the segments of a marker of no JPEG."""
    whole = encoded("RGB", "JPEG", progressive=True, size=(side, side))
    first = whole.index(b"\xff\xda")
    scan = whole[first : first + 2 + int.from_bytes(whole[first + 2 : first + 4], "big")]
    inner = (scan * (65_533 // len(scan))).ljust(65_533, b"\0")
    restart = b"\xff\xdd\x00\x04\x00\x01"
    return whole[:first] + restart + scan + bytes(4) + (b"\xff\x05\xff\xff" + inner) * blocks + b"\xff\xd9"


PICTURES = {
    "hidden scans": hidden_scans(2000, 5),
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
    return file.getvalue()


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
    "captions in two places": b'{"file_name": "0.png", "text": "a bird", "captions": ["a red bird"]}\n',
    "an empty text among others": b'{"file_name": "0.png", "captions": ["", "a red bird"]}\n',
    "text without width": b'{"file_name": "0.png", "text": "\\u200b\\u200d"}\n',
    "one picture again and again": b'{"file_name": "0.png", "text": "a bird"}\n' * 200_000,
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


def lying(path, method):
    """An archive whose list declares its first bytes, and their checksum; hundreds of megabytes of zeros follow."""
    text = members()[0][1].encode()
    archive(path, [("metadata.jsonl", text + bytes(400_000_000)), *members()[1:]], compression=method)
    data = bytearray(path.read_bytes())
    for at in (14, data.index(b"PK\x01\x02") + 16):
        struct.pack_into("<I", data, at, zlib.crc32(text))
        struct.pack_into("<I", data, at + 8, len(text))
    path.write_bytes(data)


ARCHIVES = {
    "twice": lambda path: archive(path, [*members(), ("0.png", picture(7))]),
    "outside": lambda path: archive(path, [*members(), ("../../evil.png", picture(7))]),
    "absolute": lambda path: archive(path, [*members(), ("/tmp/evil.png", picture(7))]),
    "empty": lambda path: archive(path, []),
    "pictures only": lambda path: archive(path, members()[1:]),
    "a bomb": lambda path: archive(path, [("metadata.jsonl", bytes(300_000_000))], compression=zipfile.ZIP_DEFLATED),
    "bzip2": lambda path: archive(path, members(), compression=zipfile.ZIP_BZIP2),
    "a lie in bzip2": lambda path: lying(path, zipfile.ZIP_BZIP2),
    "a lie in lzma": lambda path: lying(path, zipfile.ZIP_LZMA),
    "three million lines": lambda path: archive(
        path,
        [("metadata.jsonl", b"".join(b'{"file_name":"%x","text":"a"}\n' % number for number in range(3_000_000)))],
        compression=zipfile.ZIP_DEFLATED,
    ),
    "a million lines": lambda path: archive(
        path,
        [("metadata.jsonl", b"".join(b'{"file_name":"%x","text":"a"}\n' % number for number in range(900_000)))],
        compression=zipfile.ZIP_DEFLATED,
    ),
    "two lists": lambda path: archive(path, [*members(), *((f"old/{name}", data) for name, data in members())]),
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


@pytest.mark.parametrize("name", ["photos.tar.gz", "photos.json", "photos.csv"])
def test_files_of_other_kinds(ask, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08\0" if name.endswith("gz") else b'{"images": []}')
    answer = ask("data", tmp_path / name, *SMALL, kind="archives")
    assert "no zip archive; give" in answer.err


@pytest.mark.parametrize("where", ["caf\udce9", "x" * 250, "photos"])
def test_names_of_folders_and_of_files_beside_are_any(ask, tmp_path, where):
    folder = write_photos(tmp_path / where)
    (folder / "caf\udce9.txt").write_bytes(b"")
    ask("data", folder, *SMALL, kind="odd files", wanted="accept")


def test_a_copy_of_all_in_a_folder_below(ask, tmp_path):
    folder = write_photos(tmp_path / "photos")
    write_photos(folder / "backup")
    answer = ask("data", folder, *SMALL, kind="lists of pictures")
    assert "backup/metadata.jsonl" in answer.err


def test_a_list_that_spells_a_picture_otherwise(ask, tmp_path):
    folder = write_photos(tmp_path / "photos")
    (folder / "3.png").rename(folder / "3.PNG")
    answer = ask("data", folder, *SMALL, kind="lists of pictures")
    assert "3.png" in answer.err


@pytest.mark.parametrize("name", ["size", "source", "path"])
def test_options_of_the_names_of_arguments(ask, tmp_path, photos, name):
    more = ("--steps", 2, "--folder", tmp_path / "run", "--set", f"data.options.{name}=3")
    answer = ask("train", "gancls", "--data", photos, *more, kind="options of data")
    assert f"unknown option '{name}'" in answer.err


GAP = " " * 200_000
CUB_LISTS = {
    "a long gap": ("CUB_200_2011/images.txt", f"1 a{GAP}b.jpg\n".encode() * 4),
    "box beyond all numbers": ("CUB_200_2011/bounding_boxes.txt", b"1 1e308 0 1e308 5\n"),
    "many empty lists": ("train/filenames.pickle", b"(" + b"]" * (8_000_000) + b"l."),
    "a list of many nothings": ("train/filenames.pickle", b"(" + b"N" * (8_000_000) + b"l."),
}


@pytest.mark.parametrize("name", CUB_LISTS)
def test_lists_of_birds_that_are_none(ask, tmp_path, name):
    folder = tmp_path / "birds"
    content = {
        "CUB_200_2011/images.txt": b"1 a.jpg\n",
        "CUB_200_2011/bounding_boxes.txt": b"1 0 0 40 36\n",
        "CUB_200_2011/image_class_labels.txt": b"1 1\n",
        "CUB_200_2011/classes.txt": b"1 gull\n",
        "CUB_200_2011/train_test_split.txt": b"1 1\n",
        "CUB_200_2011/images/a.jpg": picture(1),
        "text/a.txt": b"a bird\n",
    }
    if name == "a long gap":
        content.pop("text/a.txt")
    path, data = CUB_LISTS[name]
    if path.endswith("pickle"):
        content["test/filenames.pickle"] = data
    for file, text in (content | {path: data}).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text)
    answer = ask("data", folder, *SMALL, kind="lists of pictures")
    assert "RuntimeWarning" not in answer.err


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
    from t2ilib.data import packed
    from t2ilib.data.importers.folder import import_folder

    packed.pack(import_folder(photos, 16), tmp_path / "packed")
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


def _said(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _each(path, **changes):
    rows = [json.loads(line) | changes for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _attributes(folder, given):
    _said(folder / "meta.json", attributes=True)
    _each(folder / "captions.jsonl", attributes=given)


def _nothing(folder):
    _said(folder / "meta.json", count=0)
    (folder / "captions.jsonl").write_bytes(b"")
    np.save(folder / "images.npy", np.zeros((0, 16, 16, 3), np.uint8))


def _millions_of_lists(folder):
    path = folder / "meta.json"
    lists = '"source": {"a": [' + "[]," * 28_000_000 + "[]], "
    path.write_text(path.read_text().replace('"source": {', lists))


UNTRUE = {
    "no pictures": _nothing,
    "a blank caption": lambda folder: _each(folder / "captions.jsonl", captions=[" "]),
    "a NUL in a caption": lambda folder: _each(folder / "captions.jsonl", captions=["a\0bird"]),
    "half a character in a class": lambda folder: _said(folder / "meta.json", class_names=["\ud800"]),
    "half a character in the source": lambda folder: _said(folder / "meta.json", source={"name": "\ud800"}),
    "a source of millions of lists": _millions_of_lists,
    "one attribute": lambda folder: _attributes(folder, [1]),
    "no attributes": lambda folder: _attributes(folder, []),
    "an attribute that is no list": lambda folder: _attributes(folder, 1),
    "tables of attributes": lambda folder: _attributes(folder, [[1, 2], [3, 4]]),
    "attributes of no toy bird": lambda folder: _attributes(folder, [10**6] * 11),
    "attributes below zero": lambda folder: _attributes(folder, [-5] * 11),
}


@pytest.mark.parametrize("name", UNTRUE)
def test_packed_sets_that_say_what_cannot_be(ask, packed, name):
    UNTRUE[name](packed)
    ask("data", packed, *SMALL, kind="packed sets")


def test_a_folder_that_has_files_of_the_same_names(ask, tmp_path):
    for name in ("meta.json", "captions.jsonl", "thesis.txt"):
        (tmp_path / name).write_text("mine")
    answer = ask("data", tmp_path, *SMALL, kind="packed sets")
    assert "delete" not in answer.err and len(list(tmp_path.iterdir())) == 3


def test_what_all_of_these_were_made_from_is_accepted(ask, photos, packed, tmp_path):
    ask("data", photos, *SMALL, kind="pictures", wanted="accept")
    ask("data", packed, *SMALL, kind="packed sets", wanted="accept")
    ask("data", archive(tmp_path / "photos.zip", members()), *SMALL, kind="archives", wanted="accept")
