"""Decoding picture files of any origin to upright RGB squares; a damaged one becomes an `InputError` that names it."""

import io

import numpy as np
from PIL import Image, ImageOps

from t2ilib.errors import InputError

PIXEL_LIMIT = 100_000_000  # pixels of one picture


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode a picture file to upright RGB, whatever its kind; `InputError` names it when that cannot be done.

    Turned as its EXIF entry says; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes converted.
    """
    try:
        picture = Image.open(io.BytesIO(data))
        if picture.width * picture.height > PIXEL_LIMIT:
            raise InputError(f"{name}: {picture.width} x {picture.height} pixels is too large; shrink or remove it")
        picture.load()
        return _rgb(ImageOps.exif_transpose(picture))
    except InputError:
        raise
    except Exception as error:  # decoders fail in many ways on damaged files
        raise InputError(f"{name}: not a readable picture ({error}); replace or remove it") from error


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16") or picture.mode == "I":
        grey = np.asarray(picture).astype(np.int64)
        return Image.fromarray((grey.clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
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
