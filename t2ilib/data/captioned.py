"""Captioned images, the one form in which every data set reaches the rest of the library, and its packed form on disk.

A *packed set* is a folder of three files: `images.npy` (one uint8 array, memory-mapped when opened), `captions.jsonl`
(one object per picture) and `meta.json` (format version, counts, names, where the pictures came from).
"""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np

from t2ilib.data import reading
from t2ilib.errors import InputError, unwritten
from t2ilib.files import abandoned, parse_json

FORMAT = "t2ilib-packed"
VERSION = 1
IMAGES, CAPTIONS, META = "images.npy", "captions.jsonl", "meta.json"
SPLITS = ("train", "validation", "test")
SIDE_LIMIT = 1024  # pixels of a side


@dataclass(frozen=True)
class CaptionedImages:
    """N pictures of one size, each with at least one caption, a class and a split.

    The fields are checked against each other; a mismatch raises `InputError`.
    """

    images: np.ndarray  # (N, H, W, 3) uint8 RGB, in memory or memory-mapped
    captions: list[list[str]]  # N lists of at least one caption
    class_ids: np.ndarray  # (N,) int64, indices into class_names
    splits: np.ndarray  # (N,) str: "train", "validation" or "test"
    class_names: list[str]
    attributes: np.ndarray | None = None  # (N, A) int64 value indices; toy birds only
    source: dict = field(default_factory=dict)  # where the pictures came from, with checksums

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        count = len(self.images)
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            shape, kind = self.images.shape, self.images.dtype
            raise InputError(f"images: {kind} of shape {shape}; expected uint8 of shape (N, H, W, 3)")
        columns = {"captions": self.captions, "class_ids": self.class_ids, "splits": self.splits}
        if self.attributes is not None:
            columns["attributes"] = self.attributes
        for name, column in columns.items():
            if len(column) != count:
                raise InputError(f"{name}: {len(column)} entries for {count} pictures; give one per picture")
        for index, row in enumerate(self.captions):
            _check_captions(row, index)
        if unknown := set(self.splits.tolist()).difference(SPLITS):
            raise InputError(f"splits: {min(unknown, key=str)!r} is none; use {', '.join(SPLITS)}")
        if not np.issubdtype(self.class_ids.dtype, np.integer):
            raise InputError(f"class_ids: {self.class_ids.dtype}; give whole numbers")
        if not all(isinstance(name, str) for name in self.class_names):
            raise InputError("class_names: not all are texts; give one for each class")
        if count and not 0 <= self.class_ids.min() <= self.class_ids.max() < len(self.class_names):
            raise InputError(f"class_ids: outside 0..{len(self.class_names) - 1}, the classes that are named")

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.images)

    @property
    def size(self) -> int:
        """Height of the pictures in pixels."""
        return self.images.shape[1]

    @property
    def folder(self) -> Path | None:
        """The packed set that the pictures lie in; None where they lie in memory."""
        return Path(self.images.filename).parent if isinstance(self.images, np.memmap) else None

    def subset(self, indices: Sequence[int] | np.ndarray) -> "CaptionedImages":
        """Return the pictures at `indices`, in that order (their pixels are copied into memory)."""
        indices = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            images=np.asarray(self.images[indices]),
            captions=[self.captions[i] for i in indices],
            class_ids=self.class_ids[indices],
            splits=self.splits[indices],
            attributes=None if self.attributes is None else self.attributes[indices],
        )

    def centre_crop(self, side: int) -> "CaptionedImages":
        """Return the same set with the middle `side` x `side` pixels of each picture."""
        if not 1 <= side <= min(self.images.shape[1:3]):
            raise InputError(f"crop: {side} pixels; the pictures are stored at {self.size}, pack them larger")
        top, left = ((length - side) // 2 for length in self.images.shape[1:3])
        images = self.images[:, top : top + side, left : left + side]
        return replace(self, images=images, source=self.source | {"cropped_from": self.size})

    def split(self, name: str) -> "CaptionedImages":
        """Return the pictures of one split; `InputError` names the splits there are when it is empty."""
        indices = np.flatnonzero(self.splits == name)
        if not len(indices):
            there = ", ".join(sorted(set(self.splits.tolist()))) or "none"
            raise InputError(
                f"split {name!r}: no pictures; this set has: {there}; name one of them (data.reference), or add it"
            )
        return self.subset(indices)


def _check_captions(row: object, index: int) -> None:
    if not isinstance(row, list) or not all(isinstance(caption, str) for caption in row):
        raise InputError(f"captions: those of picture {index} are no list of texts; give one")
    if not all(row) or not row:
        what = "an empty one" if row else "none"
        raise InputError(f"captions: picture {index} has {what}; every picture needs at least one, with words")
    try:
        "".join(row).encode()
    except UnicodeEncodeError:
        raise InputError(f"captions: half a character (a lone surrogate) for picture {index}; correct it") from None


def check_size(size: object, count: int = 0) -> None:
    """Raise InputError for an impossible side of pictures, and for `count` of them that this machine cannot hold."""
    if type(size) is not int or not 1 <= size <= SIDE_LIMIT:
        raise InputError(f"size: {size}; give the side of the pictures in pixels, 1 to {SIDE_LIMIT}")
    needed = count * size * size * 3
    if hasattr(os, "sysconf") and needed > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        told = f"{count} pictures take {needed / 2**30:.1f} GiB, this machine has {memory / 2**30:.1f}"
        raise InputError(f"size: {size}; at that side {told}; choose a smaller one")


def pack(dataset: CaptionedImages, folder: str | Path) -> None:
    """Write `dataset` as a packed set at `folder`, whole or not at all, replacing a packed set that is there.

    Raises `InputError` when `folder` holds something else than a packed set, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not (is_packed(folder) or (folder.is_dir() and not any(folder.iterdir()))):
        raise InputError(f"{folder}: holds something else than a packed set; move it away, or choose another folder")
    try:
        with _temporary_beside(folder) as temporary:
            _check_space(dataset.images.nbytes, temporary)
            _write(dataset, temporary)
            _swap(temporary, folder)
    except OSError as error:
        raise unwritten(folder, error, "make room there, or set T2I_DATA elsewhere") from error


def _write(dataset: CaptionedImages, folder: Path) -> None:
    np.save(folder / IMAGES, dataset.images)
    with open(folder / CAPTIONS, "w", encoding="utf-8") as file:
        file.writelines(_rows(dataset))
    (folder / META).write_text(json.dumps(_meta(dataset), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name in (IMAGES, CAPTIONS, META):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())


def _check_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(f"the pictures take {needed >> 20} MiB, {free >> 20} are free")


def is_packed(folder: str | Path) -> bool:
    """Say whether `folder` looks like a packed set, damaged or not."""
    folder = Path(folder)
    return (folder / META).is_file() and any((folder / name).exists() for name in (IMAGES, CAPTIONS))


def open_packed(folder: str | Path) -> CaptionedImages:
    """Open a packed set with its pictures memory-mapped; `InputError` names what is damaged, and the remedy."""
    folder = Path(folder)
    meta = _read_meta(folder)
    images = _read_images(folder / IMAGES, (meta["count"], meta["size"], meta["size"], 3))
    rows = _read_rows(folder / CAPTIONS, meta["count"])
    try:
        return CaptionedImages(
            images=images,
            captions=[row["captions"] for row in rows],
            class_ids=_whole([row["class_id"] for row in rows], "class_id"),
            splits=np.array([str(row["split"]) for row in rows], dtype=np.str_),
            class_names=meta["class_names"],
            attributes=_whole([row["attributes"] for row in rows], "attributes") if meta["attributes"] else None,
            source=meta["source"],
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise _damaged(folder / CAPTIONS, f"{type(error).__name__}: {error}") from error


def _whole(column: list, name: str) -> np.ndarray:
    """Return a column of whole numbers as int64; 1.5 would become 1."""
    found = np.array(column)
    if len(column) and found.dtype != np.int64:
        raise TypeError(f"{name}: not whole numbers")
    return found.astype(np.int64)


def _rows(dataset: CaptionedImages) -> Iterator[str]:
    for index, captions in enumerate(dataset.captions):
        row = {"captions": captions, "class_id": int(dataset.class_ids[index]), "split": str(dataset.splits[index])}
        if dataset.attributes is not None:
            row["attributes"] = dataset.attributes[index].tolist()
        line = json.dumps(row, ensure_ascii=False) + "\n"
        if len(line.encode()) > reading.LINE_LIMIT:
            raise InputError(f"captions: those of picture {index} take over {reading.LINE_LIMIT} bytes; shorten them")
        yield line


def _meta(dataset: CaptionedImages) -> dict:
    return {
        "format": FORMAT,
        "version": VERSION,
        "count": len(dataset),
        "size": dataset.size,
        "class_names": list(dataset.class_names),
        "attributes": dataset.attributes is not None,
        "source": dataset.source,
    }


def _swap(new: Path, folder: Path) -> None:
    retired = new.with_suffix(".old.part")
    if folder.exists():
        folder.rename(retired)
    new.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what packing into `folder` left over a day ago, when the process was killed outright."""
    for left in abandoned(folder.parent, f".{glob.escape(folder.name)}.*.part"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _temporary_beside(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    temporary.chmod(0o755)
    try:
        yield temporary
    finally:  # also on Ctrl-C; after the rename there is nothing to remove
        shutil.rmtree(temporary, ignore_errors=True)


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: {what}; delete the folder {path.parent} and pack its source again")


def _read_meta(folder: Path) -> dict:
    path = folder / META
    if not reading.is_file(path, folder):
        raise InputError(f"{folder}: not a packed set ({META} is missing); pack a source there first")
    try:
        meta = parse_json(reading.read_bytes(path, folder).decode("utf-8"))
    except ValueError as error:
        raise _damaged(path, f"not JSON ({error})") from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise InputError(f"{path}: not the metadata of a packed set; choose another folder")
    if meta.get("version") != VERSION:
        raise _damaged(path, f"packed-set version {meta.get('version')!r}, this library reads {VERSION}")
    kinds = {"count": int, "size": int, "class_names": list, "attributes": bool, "source": dict}
    for key, kind in kinds.items():
        if type(meta.get(key)) is not kind or (kind is int and meta[key] < 0):
            raise _damaged(path, f"entry {key!r} is missing or not a {kind.__name__}")
    return meta


def _read_images(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    if not reading.is_file(path, path.parent):
        raise _damaged(path, "missing")
    try:
        images = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers fail in many ways
        raise _damaged(path, f"cannot be read ({error})") from error
    if images.shape != shape or images.dtype != np.uint8:
        raise _damaged(path, f"{images.dtype} of shape {images.shape}, {META} says uint8 of shape {shape}")
    return images


def _read_rows(path: Path, count: int) -> list[dict]:
    if not reading.is_file(path, path.parent):
        raise _damaged(path, "missing")
    try:
        with open(path, "rb") as file:
            lines = islice(reading.lines(file, path.name), count + 1)  # a longer file is not read to its end
            rows = [reading.parse_line(text, f"line {number}") for number, text in lines]
    except (InputError, OSError) as error:
        raise _damaged(path, f"not JSON lines ({error})") from error
    if len(rows) != count:
        raise _damaged(path, f"{len(rows) if len(rows) < count else 'more'} pictures, {META} says {count}")
    return rows
