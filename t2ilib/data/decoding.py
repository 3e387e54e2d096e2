"""Decoding picture files of any origin to upright RGB squares; a damaged one becomes an `InputError` that names it."""

import io
import os
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

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour type
WHOLE = ((0, 0, 1, 1),)  # where a pass begins and how far its pixels lie apart: left, top, across, down
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture file to upright RGB, whatever its kind; `InputError` names it when that cannot be done.

    Turned as its EXIF entry says; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes converted.
    Refused are pictures of several frames, and numbers of 32 bits, whose range nobody knows. What its header says of
    its size is checked before anything is decoded. A MemoryError stays one: the picture is not damaged.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*picture.size, len(data), name)
        if picture.format == "PNG":
            _check_rows(data)
        _check_kind(picture, name)
        tiff = picture.format == "TIFF"
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


def _check_size(width: int, height: int, size: int, name: str) -> None:
    """Raise InputError for a picture that would take far more memory than its file."""
    pixels = width * height
    if pixels > PIXEL_LIMIT:
        raise InputError(f"{name}: {width} x {height} pixels is too large (over {PIXEL_LIMIT:,}); shrink or remove it")
    if max(width, height) > SIDES_LIMIT * min(width, height):
        raise InputError(f"{name}: {width} x {height} pixels is a strip, not a picture; crop or remove it")
    if pixels > PACKED_FROM and pixels > PACKED_LIMIT * size:
        raise InputError(f"{name}: {size} bytes that unpack to {width} x {height} pixels; shrink or remove it")


def _check_kind(picture: Image.Image, name: str) -> None:
    """Raise InputError for several frames, but a camera's previews (MPO), and for pixels of an unknown range."""
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise InputError(f"{name}: has several frames; save the one that its captions describe")
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PNG"):
        kind = "floating-point" if picture.mode == "F" else "32-bit"
        raise InputError(f"{name}: {kind} pixels, whose range is unknown; save it with 8 or 16 bits")


def _check_rows(data: bytes) -> None:
    """Raise ValueError for a PNG whose pixels end early: Pillow would fill up with black."""
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    expected = 0  # bytes: each row of each pass is its pixels, to whole bytes, and one that says how it is stored
    for left, top, across, down in ADAM7 if interlaced else WHOLE:
        columns, rows = max(0, -(-(width - left) // across)), max(0, -(-(height - top) // down))
        expected += rows * (1 + -(-columns * depth * CHANNELS[kind] // 8)) if columns else 0
    found = 0
    for count in _unpacked(data):
        found += count
        if found >= expected:
            return
    raise ValueError(f"{found} of {expected} bytes of its pixels are there")


def _unpacked(data: bytes) -> Iterator[int]:
    """Yield how many bytes the pixels of a PNG take, piece by piece: whole they may be hundreds of megabytes."""
    unpacker, at = zlib.decompressobj(), 8
    while at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        end = at + 8 + length
        for start in range(at + 8, min(end, len(data)) if name == b"IDAT" else 0, PIECE):
            packed, count = data[start : min(start + PIECE, end)], UNPACKED
            while count == UNPACKED:  # there may be more of this piece
                count = len(unpacker.decompress(packed, UNPACKED))
                packed = unpacker.unconsumed_tail
                yield count
        at = end + 4


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
