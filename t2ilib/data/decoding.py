"""Decoding picture files of any origin to upright RGB squares; a damaged one becomes an `InputError` that names it."""

import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t2ilib.errors import InputError

warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture is told once, by the error here
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # no others: some decoders of Pillow start programs
PIXEL_LIMIT = 25_000_000  # pixels of one picture: those of most cameras, and 20 bytes each while it is read
ALONE_FROM, ALONE = PIXEL_LIMIT // 2, threading.Lock()  # larger ones, and TIFFs, are decoded one at a time
STDERR = 2  # the file descriptor, which libraries in C write to
SIDES_LIMIT = 40  # longer side over shorter
PIECE, UNPACKED = 1 << 16, 1 << 20  # bytes that are unpacked at once to be counted, and what becomes of them at most
PACKED_LIMIT, PACKED_FROM = 400, 4_000_000  # a picture of more pixels than the second has at most so many per byte
FLAT = ("PNG", "WEBP", "GIF", "TIFF")  # but these, of which a plain one may take a few bytes
DEFLATED_LIMIT = 1100  # bytes of a PNG's pixels per byte; deflate gets to 1032
MARKER = re.compile(rb"\xff([\x02-\xcf\xd9-\xfe])")  # of a JPEG's segment; not FF00, which stands for FF, nor restarts
SCAN, END, FIRST = b"\xda", b"\xd9", b"\xc0"  # no marker below the third is anything's; decoders pass over it alone
SCANS_LIMIT, SEGMENTS_LIMIT = 100, 10_000  # of a JPEG; 6,253 files had at most 10, and 30
PACKED_TIFF = ("tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg", "packbits", "zstd", "lzma")
TILE = (322, 323)  # tags: the width and height of a TIFF's tiles
TIFF_PIECES = ((273, 279), (324, 325))  # tags: where strips begin and their bytes, and those of tiles
ZEROS = 64  # bytes of zeros that no strip of these ends with; in 10,000 of Pillow's, 5 were the most

TEXTS = ("MAX_TEXT_CHUNK", "MAX_TEXT_MEMORY")  # what Pillow calls its limits of what a PNG holds beside its pixels
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour type
WHOLE = ((0, 0, 1, 1),)  # where a pass begins and how far its pixels lie apart: left, top, across, down
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture file to upright RGB, whatever its kind; `InputError` names it when that cannot be done.

    Turned as its EXIF entry says; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes converted.
    Refused are pictures of several frames, and numbers of 32 bits, whose range nobody knows. What its header says of
    its size is checked before anything is decoded. A MemoryError stays one: the picture is not damaged.

    Half of a file, its rest filled with zeros as some programs leave it that fetch files, is refused where it can be
    told: not for WebP and what is not packed (BMP, some TIFFs), where flat and black pictures look the same.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            _check_scans(data)
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(picture, len(data), name)
        if picture.format == "PNG":
            _check_sums(data)
            _check_rows(data)
        tiff = picture.format == "TIFF"
        if tiff:
            _check_tiles(picture)
            _check_ends(picture, data)
        _check_kind(picture, name)
        with ALONE if tiff or picture.width * picture.height > ALONE_FROM else nullcontext():
            with _silence() if tiff else nullcontext():
                picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
            return _rgb(picture)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a readable picture of {', '.join(FORMATS)}; replace or remove it") from None
    except Exception as error:  # decoders fail in many ways on damaged files
        if str(error).startswith("out of memory"):  # Pillow's words for it
            raise MemoryError from error
        if any(told in str(error) for told in TEXTS):
            told = "over a megabyte of text or colour profile, or 64 of all texts, beside its pixels"
            raise InputError(f"{name}: {told}; save it without metadata") from error
        raise InputError(f"{name}: not a readable picture ({error}); replace or remove it") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what is printed to the standard error, by libtiff for one, which tells damage line by line; the error does.

    It is that of the whole process: who enters holds `ALONE`.
    """
    try:
        kept = os.dup(STDERR)
    except OSError:  # it is closed, and stays so
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, STDERR)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def _check_size(picture: Image.Image, size: int, name: str) -> None:
    """Raise InputError for a picture that would take far more memory than its file."""
    width, height = picture.size
    pixels = width * height
    if pixels > PIXEL_LIMIT:
        raise InputError(f"{name}: {width} x {height} pixels is too large (over {PIXEL_LIMIT:,}); shrink or remove it")
    if max(width, height) > SIDES_LIMIT * min(width, height):
        raise InputError(f"{name}: {width} x {height} pixels is a strip, not a picture; crop or remove it")
    if picture.format not in FLAT and pixels > PACKED_FROM and pixels > PACKED_LIMIT * size:
        raise InputError(f"{name}: {size} bytes that unpack to {width} x {height} pixels; shrink or remove it")


def _check_kind(picture: Image.Image, name: str) -> None:
    """Raise InputError for several frames, but a camera's previews (MPO), and for pixels of an unknown range."""
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise InputError(f"{name}: has several frames; save the one that its captions describe")
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise InputError(f"{name}: {kind} pixels, whose range is unknown; save it with 8 or 16 bits")


def _check_scans(data: bytes) -> None:
    """Raise ValueError for a JPEG without an end, and for one whose decoding takes far longer than its size says.

    What follows the end is not looked at: cameras append previews, films, and zeros.
    """
    at, scans = 2, 0
    for _ in range(SEGMENTS_LIMIT):
        found = MARKER.search(data, at)
        if not found:
            raise ValueError("its end is missing")
        if found[1] == END:
            return
        if found[1] < FIRST:  # its length counts for nobody: what seems to be its segment may be scans
            raise ValueError(f"the marker {found[0].hex().upper()}, which no JPEG has")
        scans += found[1] == SCAN
        if scans > SCANS_LIMIT:
            raise ValueError(f"over {SCANS_LIMIT} scans")
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    raise ValueError(f"over {SEGMENTS_LIMIT:,} segments")


def _check_tiles(picture: Image.Image) -> None:
    """Raise ValueError for a TIFF whose tiles are larger than any picture may be: each is unpacked whole."""
    width, height = (picture.tag_v2.get(tag, 0) for tag in TILE)
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"tiles of {width} x {height} pixels")


def _check_ends(picture: Image.Image, data: bytes) -> None:
    """Raise ValueError for a TIFF of packed strips or tiles, one of which ends with zeros."""
    if picture.info.get("compression") not in PACKED_TIFF:
        return
    for starts, counts in TIFF_PIECES:
        for start, count in zip(picture.tag_v2.get(starts, ()), picture.tag_v2.get(counts, ()), strict=False):
            end = data[max(start, start + count - ZEROS) : start + count]
            if end and not end.strip(b"\0"):
                raise ValueError("it ends with zeros")


def _check_sums(data: bytes) -> None:
    """Raise ValueError for a PNG whose pixels are not those that its check sums say, which Pillow looks at seldom."""
    view = memoryview(data)
    for name, start, end in _chunks(data):
        whole = name == b"IDAT" and end + 4 <= len(data)
        if whole and zlib.crc32(view[start - 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError("a check sum of its pixels is wrong")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each chunk of a PNG up to its last, which may be cut off."""
    at, name = 8, b""
    while at + 8 <= len(data) and name != b"IEND":
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if not name.isalpha():
            raise ValueError("damaged between its pieces")
        yield name, at + 8, at + 8 + length
        at += length + 12


def _check_rows(data: bytes) -> None:
    """Raise ValueError for a PNG whose pixels end early: Pillow would fill up with black."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    expected = 0  # bytes: each row of each pass is its pixels, to whole bytes, and one that says how it is stored
    for left, top, across, down in ADAM7 if interlaced else WHOLE:
        columns, rows = max(0, -(-(width - left) // across)), max(0, -(-(height - top) // down))
        expected += rows * (1 + -(-columns * depth * CHANNELS[kind] // 8)) if columns else 0
    if expected > DEFLATED_LIMIT * len(data):
        raise ValueError(f"{len(data)} bytes that unpack to {width} x {height} pixels")
    found = 0
    for count in _unpacked(data):
        found += count
        if found >= expected:
            return
    raise ValueError(f"{found} of {expected} bytes of its pixels are there")


def _unpacked(data: bytes) -> Iterator[int]:
    """Yield how many bytes the pixels of a PNG take, piece by piece: whole they may be hundreds of megabytes."""
    unpacker = zlib.decompressobj()
    for name, first, end in _chunks(data):
        for start in range(first, min(end, len(data)) if name == b"IDAT" else 0, PIECE):
            packed, count = data[start : min(start + PIECE, end)], UNPACKED
            while count == UNPACKED:  # there may be more of this piece
                count = len(unpacker.decompress(packed, UNPACKED))
                packed = unpacker.unconsumed_tail
                yield count


def _rgb(picture: Image.Image) -> Image.Image:
    """Return a loaded picture as RGB, with one copy of it at most."""
    if picture.mode.startswith("I"):
        return Image.fromarray((np.asarray(picture).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture if picture.mode == "RGBA" else picture.convert("RGBA")
        white = Image.new("RGB", layer.size, "white")
        white.paste(layer, mask=layer)
        return white
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def square(picture: Image.Image, size: int, box: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """Return (size, size, 3) uint8: the centre square of `box` (left, top, right, bottom; default the whole picture).

    The crop's short side is resized to `size` first, antialiased bilinear, as torchvision's Resize and CenterCrop do.
    """
    picture = picture.crop(box) if box else picture
    short = min(picture.size)
    width, height = (size * side // short for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))
