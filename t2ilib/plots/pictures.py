"""Sheets of pictures with their captions, as a chapter shows them, and pixel by pixel, as a run keeps them."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.font_manager import findfont, get_font
from PIL import Image, ImageDraw

from t2ilib.errors import InputError
from t2ilib.files import atomic
from t2ilib.pictures import to_uint8
from t2ilib.plots.style import DPI, STYLE, WIDTH, Plot, png_bytes

SHOWN, PER_PIXEL = 22_000, 0.06  # bytes that a sheet may take in a notebook, which holds several; more if it is large
FRAME = "#e6009f"  # a colour that no toy bird has
LONGEST = 240  # letters of a caption that a sheet shows
QUALITIES = (75, 60, 50, 40, 32, 25, 20, 16, 12)  # of JPEG, the best that fits is taken


class Sheet(Plot):
    """A figure of pictures, which a notebook shows as JPEG: small, and colours stay true."""

    def _repr_png_(self) -> None:
        """Leave it to the JPEG."""

    def _repr_jpeg_(self) -> bytes:
        """The pictures as JPEG, of the best quality that fits its share of a notebook."""
        picture = Image.open(io.BytesIO(png_bytes(self))).convert("RGB")
        room = max(SHOWN, PER_PIXEL * picture.width * picture.height)
        for quality in QUALITIES:
            buffer = io.BytesIO()
            picture.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= room:
                break
        return buffer.getvalue()


def sheet(
    images,
    columns: int = 8,
    captions: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
) -> Sheet:
    """Pictures in rows of `columns`, at least 1.12 inches wide each; `images` as `to_uint8` takes them.

    `captions` stand below the columns, once; `rows` are names of the rows, at their left.
    """
    images = _some(images, columns)
    columns = min(columns, len(images))
    count = -(-len(images) // columns)
    margin = 0.16 if rows else 0.0  # inches for the rows' names
    cell, gap = max((WIDTH - margin) / columns, 1.12), 0.04
    texts = _wrapped(captions or [], cell, letters=18)
    width, height = margin + columns * cell, count * cell + _footer(texts)
    with matplotlib.rc_context(STYLE):
        figure = Sheet(figsize=(width, height), dpi=DPI)
        for index, image in enumerate(images):
            row, column = divmod(index, columns)
            left, bottom = margin + column * cell + gap / 2, height - (row + 1) * cell + gap / 2
            axes = figure.add_axes((left / width, bottom / height, (cell - gap) / width, (cell - gap) / height))
            axes.imshow(image, interpolation="lanczos" if image.shape[0] < cell * DPI else "antialiased")
            axes.set_axis_off()
            if index >= len(images) - columns and column < len(texts):  # the lowest picture of its column
                axes.text(0, -0.02, texts[column], transform=axes.transAxes, fontsize=7, va="top", linespacing=1.1)
        for row, name in enumerate(rows or []):
            middle = (height - (row + 0.5) * cell) / height
            figure.text(0.07 / width, middle, name, rotation=90, fontsize=7.5, va="center", ha="center")
    return figure


def grid(images, captions: Sequence[str] | None = None, columns: int = 8, title: str | None = None) -> Sheet:
    """Pictures side by side, each with its caption in small print below; `images` as `to_uint8` takes them."""
    images = _some(images, columns)
    columns = min(columns, len(images))
    cell, gap, header = WIDTH / columns, 0.03, 0.3 if title else 0.0  # inches
    texts = _wrapped(captions, cell) if captions is not None else [""] * len(images)
    footers = [_footer(texts[first : first + columns]) for first in range(0, len(images), columns)]
    with matplotlib.rc_context(STYLE):
        height = header + sum(cell + footer for footer in footers)
        figure = Sheet(figsize=(WIDTH, height), dpi=DPI)
        for index, (image, text) in enumerate(zip(images, texts, strict=True)):
            row, column = divmod(index, columns)
            bottom = height - header - (row + 1) * cell - sum(footers[:row])
            box = (column * cell + gap / 2, bottom + gap / 2, cell - gap, cell - gap)
            axes = figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height))
            axes.imshow(image, interpolation="lanczos" if image.shape[0] * 1.5 < cell * DPI else "antialiased")
            axes.set_axis_off()
            axes.text(0, -0.02, text, transform=axes.transAxes, fontsize=6, va="top", linespacing=1.15)
        if title:
            figure.text(0.005, 1 - 0.08 / height, title, weight="bold", size=10, va="top")
    return figure


def contact_sheet(images, columns: int = 8, path: str | Path | None = None, gap: int = 2) -> Image.Image:
    """All pictures in one, pixel by pixel, `gap` white pixels apart; written to `path` (PNG) when one is given."""
    images = _some(images, columns)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    if path is not None:
        with atomic(path) as temporary:
            temporary.write_bytes(png_bytes(picture))
    return picture


def framed(image: np.ndarray, box: Sequence[float], colour: str = FRAME, width: int = 2) -> np.ndarray:
    """A copy of a picture (H, W, 3) with a frame along the inside of `box`: left, top, right, bottom in pixels."""
    picture = Image.fromarray(image)
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise InputError(f"box = {tuple(box)}: is empty; give left, top, right, bottom")
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=colour, width=width)
    return np.asarray(picture)


def _some(images, columns: int) -> np.ndarray:
    """Return pictures as `to_uint8`; InputError where there are none, or no columns."""
    if columns < 1:
        raise InputError(f"columns = {columns}: must be at least 1")
    if not len(images):
        raise InputError("images: none given; give at least one picture")
    return to_uint8(images)


def _footer(texts: Sequence[str]) -> float:
    """Return the height in inches that a row's captions need below it."""
    lines = max((text.count("\n") + 1 if text else 0 for text in texts), default=0)
    return 0.03 + 0.115 * lines if lines else 0.0


def _wrapped(captions: Sequence[str], cell: float, letters: int = 21) -> list[str]:
    """Break captions into lines that fit `cell` inches, at so many letters an inch; words stay whole."""
    width = max(int(cell * letters), 12)
    options = {"break_long_words": False, "break_on_hyphens": False}
    return [textwrap.fill(_legible(caption), width, **options) for caption in captions]


def _legible(caption: str) -> str:
    """Return a caption cut to `LONGEST` letters, with a square for each that the font does not have."""
    known = get_font(findfont(STYLE["font.family"])).get_charmap()
    told = caption if len(caption) <= LONGEST else caption[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(letter if ord(letter) in known or letter.isspace() else "\N{WHITE SQUARE}" for letter in told)
