"""Captioned images, the one form in which every data set reaches the rest of the library."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from t2ilib.errors import InputError

SPLITS = ("train", "validation", "test")
SIDE_LIMIT = 1024  # pixels of a side
SHARE = 0.9  # of the memory that is free, which pictures may take


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
        _check_letters("".join(self.class_names), "class_names: {}; correct it")
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
    _check_letters("".join(row), f"captions: {{}} for picture {index}; correct it")
    if not row or not all(map(has_words, row)):
        what = "an empty one" if row else "none"
        raise InputError(f"captions: picture {index} has {what}; every picture needs at least one, with words")


def has_words(caption: str) -> bool:
    """Say whether a caption shows anything; spaces and characters without width do not."""
    return any(letter.isprintable() and not letter.isspace() for letter in caption)


def _check_letters(text: str, message: str) -> None:
    if "\0" in text:
        raise InputError(message.format("a NUL character"))
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(message.format("half a character (a lone surrogate)")) from None


def check_size(size: object, count: int = 0) -> None:
    """Raise InputError for an impossible side of pictures, and for `count` of them that memory cannot hold now."""
    if type(size) is not int or not 1 <= size <= SIDE_LIMIT:
        raise InputError(f"size: {size}; give the side of the pictures in pixels, 1 to {SIDE_LIMIT}")
    needed, free = count * size * size * 3, psutil.virtual_memory().available
    if needed > SHARE * free:
        told = f"{count} pictures take {needed / 2**30:.1f} GiB, this machine has {free / 2**30:.1f} GiB free"
        raise InputError(f"size: {size}; at that side {told}; choose a smaller one, or end other programs")
