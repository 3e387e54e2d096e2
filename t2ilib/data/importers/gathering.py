"""What every importer does with the pictures that its lists name: which are there, decoding, copies across splits."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from t2ilib.data import decoding
from t2ilib.data.captioned import check_size
from t2ilib.errors import InputError, printable, warn

WORKERS = 2  # pictures read at once, so that the largest that are admitted take under a gigabyte on any machine


def keep_present(
    names: Sequence[str], exists: Callable[[str], bool], where: Path, allow_missing: bool, note: str = ""
) -> list[int]:
    """Return the positions of the names that exist; `InputError` counts the others unless `allow_missing`.

    `note` says there what else counts as missing.
    """
    there = [exists(name) for name in names]
    kept = [index for index, here in enumerate(there) if here]
    missing = len(names) - len(kept)
    if missing and not (allow_missing and kept):
        first = names[there.index(False)]
        take = "pass allow_missing=True (t2i data: --allow-missing) to take what is there"
        remedy = f"get the complete data, or {take}" if kept else "check the path"
        raise InputError(
            f"{where}: {missing} of {len(names)} pictures are missing, the first is {first}{note}; {remedy}"
        )
    if not kept:
        raise InputError(f"{where}: lists no pictures; check that it is the right one")
    return kept


def decode(
    names: Sequence[str],
    splits: Sequence[str],
    read: Callable[[str], bytes],
    where: Path,
    size: int,
    crop: Callable | None = None,
) -> np.ndarray:
    """Decode pictures into (N, size, size, 3) uint8, `WORKERS` at a time.

    `crop(index, width, height)` gives the box (left, top, right, bottom) to keep of picture `index`; without it the
    whole picture counts. Files of the same bytes in two of the `splits` are told in one line.
    """
    check_size(size, len(names))
    images = np.empty((len(names), size, size, 3), dtype=np.uint8)

    def place(index: int) -> bytes:
        try:
            data = read(names[index])
            mark, picture = hashlib.sha256(data).digest(), decoding.read_picture(data, f"{where}/{names[index]}")
            del data  # up to 200 MB, which are not needed beside the copies that follow
            box = crop(index, *picture.size) if crop else None
            images[index] = decoding.square(picture, size, box)
        except MemoryError:
            told = "no memory left to read it (MemoryError); end other programs, or shrink it"
            raise InputError(f"{where}/{names[index]}: {told}") from None
        return mark

    with ThreadPoolExecutor(WORKERS) as pool:
        done = pool.map(place, range(len(names)))
        shown = f"reading {printable(where.name)}"
        marks = list(tqdm(done, desc=shown, total=len(names), disable=None, delay=2, leave=False))
    _tell_copies(names, splits, marks, where)
    return images


def _tell_copies(names: Sequence[str], splits: Sequence[str], marks: Sequence[bytes], where: Path) -> None:
    """Warn of files of the same bytes in two splits: what is measured on one is known from the other."""
    first: dict[bytes, int] = {}
    copies = [(first.setdefault(mark, index), index) for index, mark in enumerate(marks)]
    across = [(one, other) for one, other in copies if splits[one] != splits[other]]
    if across:
        one, other = [f"{names[i]} ({splits[i]})" for i in across[0]]
        told = f"the first is {one}, the same as {other}"
        warn(f"{where}: {len(across)} pictures are in two splits, {told}; remove one of each, or numbers are too good")
