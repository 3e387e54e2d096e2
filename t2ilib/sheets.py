"""Captions from a file and pictures to files, however many: what `t2i sample` reads and writes."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from tqdm import tqdm

from t2ilib.data import reading
from t2ilib.errors import InputError, one_line
from t2ilib.files import parse_json
from t2ilib.pictures import to_uint8
from t2ilib.plots import contact_sheet
from t2ilib.sampler import Sampler

CAPTION_LIMIT = 10_000  # bytes
ROWS = 256  # captions that one picture shows; more go into a folder
GRID_SIDE, GRID_PIXELS = 32_767, 100_000_000  # many programs show no larger pictures
WORDS, LETTERS = 8, 80  # of a caption in the name of its grid
PNG = b"\x89PNG\r\n\x1a\n"
GAP = 2  # pixels between the pictures of a grid


class Captions:
    """Captions given one by one, then those of a text file, a line each; read anew whenever they are gone through."""

    def __init__(self, given: Sequence[str] = (), file: str | Path | None = None):
        """Take them; InputError for a file that is none, and where there is no caption at all."""
        self.given, self.file = list(given), None if file is None else Path(file)
        for caption in self.given:
            if not _is_text(caption):
                raise InputError(f'caption "{one_line(caption)}": give text in UTF-8 of at most {CAPTION_LIMIT} bytes')
        if self.file is not None and not self.file.is_file():
            kind = "no text file" if self.file.exists() else "no such file"
            raise InputError(f"{self.file}: {kind}; give a text file with one caption per line")
        self.count = sum(1 for _ in self)
        if not self.count:
            raise InputError('no caption given; for example: t2i sample gancls_toy "a small blue bird."')

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def __iter__(self) -> Iterator[str]:
        """Go through them, line by line; InputError where the file cannot be read, or holds JSON."""
        yield from self.given
        if self.file is not None:
            try:
                with open(self.file, "rb") as file:
                    ended = reading.OldLines(file)
                    for number, line in reading.lines(ended, self.file, limit=CAPTION_LIMIT, each="caption"):
                        _check_plain(line, f"{self.file} line {number}")
                        yield line.strip()
            except OSError as error:
                raise InputError(f"{self.file}: cannot be read ({error.strerror}); give a text file") from None


def _is_text(caption: str) -> bool:
    try:
        return len(caption.encode("utf-8")) <= CAPTION_LIMIT
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8
        return False


def _check_plain(line: str, where: str) -> None:
    """Raise InputError for an object or a list in JSON, which is no caption."""
    try:
        found = parse_json(line)
    except ValueError:
        return
    if isinstance(found, (dict, list)):
        raise InputError(f"{where}: JSON, not a caption; write the captions alone, one per line")


def check_target(out: Path, count: int) -> None:
    """Raise InputError where the pictures of `count` captions cannot go to `out`, a PNG or a folder."""
    if out.suffix not in (".png", ""):
        raise InputError(f"{out}: pictures are written as .png; or name a folder, without an ending")
    if not out.suffix and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; name another folder for the grids, or remove it")
    if blocked := [str(above) for above in out.absolute().parents if above.exists() and not above.is_dir()]:
        raise InputError(f"{out}: {blocked[0]} is a file; name another place")
    if out.suffix and count > ROWS:
        raise InputError(f"{out}: {count} captions are more rows than one picture has ({ROWS}); name a folder instead")
    if out.suffix:
        check_replaceable(out)


def check_replaceable(path: Path) -> None:
    """Raise InputError where `path` is something else than a PNG: it would be lost."""
    if not path.exists():
        return
    start = None
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(len(PNG))
    if start not in (PNG, b""):
        raise InputError(f"{path}: exists, and is no PNG; choose another name, or remove it")


def write_sheets(
    sampler: Sampler,
    captions: Captions,
    out: Path,
    seed: int = 0,
    per_caption: int = 8,
    truncation: float | None = None,
) -> str:
    """Draw `per_caption` pictures of each caption and return a line about what was written, with a progress bar.

    `out` is a PNG, one row per caption, or a folder, for one square grid per caption, written as it is drawn.
    """
    check_target(out, len(captions))
    columns = per_caption if out.suffix else math.ceil(per_caption**0.5)
    rows = len(captions) if out.suffix else -(-per_caption // columns)
    side = sampler.side + GAP
    if max(rows, columns) * side > GRID_SIDE or rows * columns * side**2 > GRID_PIXELS:
        remedy = "name a folder, for one square grid per caption" if out.suffix else "draw fewer of each caption"
        raise InputError(f"{out}: a grid of {rows} x {columns} pictures is too large; {remedy}")
    batches = sampler.stream(captions, seed, per_caption, truncation)
    told = tqdm(grouped(batches, per_caption), total=len(captions), unit="caption", disable=None)
    if out.suffix:
        contact_sheet(np.concatenate(list(told)), columns=columns, path=out, gap=GAP)
        return f"wrote {out}: {rows} rows of {columns}"
    digits = max(3, len(str(len(captions))))
    for number, (caption, own) in enumerate(zip(captions, told, strict=True), start=1):
        path = out / grid_name(number, caption, digits)
        check_replaceable(path)
        contact_sheet(own, columns=columns, path=path, gap=GAP)
    return f"wrote {out}: {len(captions)} grids of {per_caption}"


def grid_name(number: int, caption: str, digits: int = 3) -> str:
    """Return the file name of a caption's grid, 001_a-red-bird.png: its number, which is its own, and first words."""
    words = "-".join(re.findall(r"[a-z0-9]+", caption.lower())[:WORDS])[:LETTERS].strip("-")
    return f"{number:0{digits}d}_{words}.png" if words else f"{number:0{digits}d}.png"


def grouped(batches: Iterable[Tensor], size: int) -> Iterator[np.ndarray]:
    """Cut a stream of pictures (B, 3, H, W) in [-1, 1] into arrays (size, H, W, 3) of bytes."""
    parts: list[np.ndarray] = []
    for batch in batches:
        images = to_uint8(batch)
        while len(images):
            part = images[: size - sum(map(len, parts))]
            parts.append(part)
            images = images[len(part) :]
            if sum(map(len, parts)) == size:
                yield np.concatenate(parts)
                parts = []
