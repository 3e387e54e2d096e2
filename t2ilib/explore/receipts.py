"""A picture that says how it was made: a PNG with caption, system, noise and the weights' checksum in its metadata.

`t2i sample --like FILE` reads that and paints the picture again.
"""

import io
import json
import re
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from t2ilib.errors import InputError, one_line
from t2ilib.files import atomic, parse_json
from t2ilib.sampler import check_drawing
from t2ilib.sheets import CAPTION_LIMIT, check_replaceable

KEY = "t2ilib"  # of the PNG's text chunk
SIDE = 4096  # pixels of a saved picture, at most
DIGEST = re.compile("[0-9a-f]{64}")
KINDS = {"caption": str, "system": str, "weights": str, "seed": int, "number": int, "count": int}


def check_kinds(values: object, what: str) -> None:
    """Raise InputError for an entry of a receipt or a request that is of another kind than it must be."""
    for name, kind in KINDS.items():
        if hasattr(values, name) and type(getattr(values, name)) is not kind:
            raise InputError(f"{what}: {name} = {one_line(repr(getattr(values, name)))}: must be {kind.__name__}")
    if type(values.truncation) not in (float, int, type(None)):
        raise InputError(f"{what}: truncation = {one_line(repr(values.truncation))}: must be a number, or None")


@dataclass(frozen=True)
class Receipt:
    """What a picture was painted from: enough to paint it again, to the bit on the same machine.

    All `count` pictures of the caption are painted together, with the noise of `seed`; this is the one of `number`.
    """

    caption: str
    system: str  # what `load_sampler` takes: shipped weights by name, a run folder, a checkpoint
    weights: str  # SHA-256 of its file
    seed: int = 0
    number: int = 0  # from 0
    count: int = 1
    truncation: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for values that nothing can be painted from."""
        check_kinds(self, "recipe of the picture")
        check_caption(self.caption)
        if not self.system.strip() or not DIGEST.fullmatch(self.weights):
            raise InputError(
                f"system, weights = {one_line(self.system)}, {one_line(self.weights)}: a name, and a SHA-256"
            )
        check_drawing(self.seed, self.count, self.truncation)
        if not 0 <= self.number < self.count:
            raise InputError(f"number = {self.number}: must be at least 0 and below count = {self.count}")


def check_caption(caption: str) -> None:
    """Raise InputError for a caption that is too long, or that no file can hold."""
    try:
        size = len(caption.encode("utf-8"))
    except UnicodeEncodeError:
        raise InputError(f'caption "{one_line(caption)}": holds half a character; type it anew') from None
    if size > CAPTION_LIMIT:
        raise InputError(f"caption: {size:,} bytes; the longest that is read has {CAPTION_LIMIT:,}, shorten it")


def png(picture: np.ndarray, receipt: Receipt | None = None) -> bytes:
    """Return a picture (H, W, 3) uint8 as the bytes of a PNG, with its receipt inside where there is one."""
    told = PngImagePlugin.PngInfo()
    if receipt is not None:
        told.add_itxt(KEY, json.dumps(asdict(receipt)))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", pnginfo=told)
    return buffer.getvalue()


def save_picture(path: str | Path, picture: np.ndarray, receipt: Receipt) -> Path:
    """Write a picture (H, W, 3) uint8 with its receipt; InputError as `check_target`."""
    path = Path(path)
    check_target(path)
    with atomic(path) as temporary:
        temporary.write_bytes(png(picture, receipt))
    return path


def check_target(path: Path) -> None:
    """Raise InputError for a path that is no PNG's, or something else's."""
    if path.suffix.lower() != ".png":
        raise InputError(f"{path}: pictures are written as .png; choose another name")
    check_replaceable(path)


def read_receipt(path: str | Path) -> Receipt:
    """Return the receipt in a PNG that `save_picture` wrote; InputError where there is none, or a damaged one."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: {'no file' if path.exists() else 'no such file'}; give a PNG that the explorer saved"
        )
    remedy = "give a PNG that the explorer saved, or write its caption out"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd about it: it is refused or read
            with Image.open(path, formats=["PNG"]) as picture:
                if max(picture.size) > SIDE:
                    raise ValueError(f"{picture.width} x {picture.height} pixels")
                picture.load()  # text may stand behind the pixels
                text = picture.text.get(KEY)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not a whole PNG ({one_line(error, 80)}); {remedy}") from None
    if text is None:
        raise InputError(f"{path}: does not say how it was made; {remedy}")
    try:
        return _receipt(parse_json(text))
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"{path}: what it says of its making is damaged ({one_line(error, 120)}); {remedy}") from None


def _receipt(told: Any) -> Receipt:
    """Return the receipt of a mapping; ValueError for any other."""
    known = {item.name for item in fields(Receipt)}
    if not isinstance(told, dict) or told.keys() != known:
        raise ValueError(f"it has not just {', '.join(sorted(known))}")
    return Receipt(**told)
