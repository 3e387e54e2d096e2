"""Decoding picture files of any origin to upright RGB squares; a damaged one becomes an `InputError` that names it."""

import io
import struct
import warnings
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from t2ilib.errors import InputError

warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with a picture is told once, by the error here
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # no others: some decoders of Pillow start programs
PIXEL_LIMIT = 100_000_000  # pixels of one picture
SIDES_LIMIT = 40  # longer side over shorter
PACKED_LIMIT, PACKED_FROM = 400, 4_000_000  # a picture of more pixels than the second has at most so many per byte

CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of a PNG's colour type
WHOLE = ((0, 0, 1, 1),)  # where a pass begins and how far its pixels lie apart: left, top, across, down
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture file to upright RGB, whatever its kind; `InputError` names it when that cannot be done.

    Turned as its EXIF entry says; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes converted.
    Refused are pictures of several frames, and numbers of 32 bits, whose range nobody knows. What its header says of
    its size is checked before anything is decoded.
    """
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_size(*picture.size, len(data), name)
        if picture.format == "PNG":
            _check_rows(data)
        _check_kind(picture, name)
        picture.load()
        return _rgb(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{name}: not a readable picture of {', '.join(FORMATS)}; replace or remove it") from None
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(f"{name}: not a readable picture ({error}); replace or remove it") from error


def _check_size(width: int, height: int, size: int, name: str) -> None:
    """Raise InputError for a picture that would take far more memory than its file."""
    pixels = width * height
    if pixels > PIXEL_LIMIT:
        raise InputError(f"{name}: {width} x {height} pixels is too large; shrink or remove it")
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
    unpacker, found, at = zlib.decompressobj(), 0, 8
    while found < expected and at + 8 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if name == b"IDAT":
            found += len(unpacker.decompress(data[at + 8 : at + 8 + length], expected - found))
        at += length + 12
    if found < expected:
        raise ValueError(f"{found} of {expected} bytes of its pixels are there")


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


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
