"""Training batches, made on the device from pictures that live there as bytes.

No worker processes and no decoding: cropping, flipping and normalising happen for the whole batch at once. A batch is a
pure function of (seed, step, rank), so a resumed run sees exactly what an uninterrupted one would have seen.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError

if TYPE_CHECKING:
    from t2ilib.text.encoder import CaptionFeatures


@dataclass(frozen=True)
class Augment:
    """What happens to each picture, drawn anew each time it is shown."""

    crop: int | None = None  # side of a random square crop in pixels; None keeps the stored size (DF-GAN: 256 of 304)
    flip: bool = True  # mirror half of the pictures


@dataclass
class Batch:
    """One batch, all of it on the device."""

    images: Tensor  # (B, 3, H, W) float32 in [-1, 1], channels last in memory
    mismatched: Tensor  # (B, 3, H, W), each of another class than the same row of images
    sentence: Tensor  # (B, D) sentence feature of one caption of the picture
    class_ids: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, positions in the data set
    words: Tensor | None = None  # (B, T, D) word features of the same caption
    mask: Tensor | None = None  # (B, T) bool, True = padding
    target: Tensor | None = None  # (B, D') sentence feature of the same caption by the CLIP of the CLIP loss
    step: int = 0  # number of the batch


class Batches:
    """The endless sequence of batches of one data set, for one of `world` processes.

    Every epoch shows every picture once, in an order that (seed, epoch) decides; the processes share it without
    overlap, and a batch that an epoch cannot fill continues into the next. Captions are drawn uniformly:
    `features.offsets[i]:features.offsets[i + 1]` are the feature rows of picture i's captions.
    """

    def __init__(  # noqa: PLR0913
        self,
        dataset: CaptionedImages,
        features: "CaptionFeatures",
        batch_size: int,
        device: torch.device | str,
        *,
        seed: int = 0,
        augment: Augment | None = None,
        targets: "CaptionFeatures | None" = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Move pictures and features to `device`; impossible arguments raise `InputError`."""
        self.augment = augment or Augment()
        self.side = self.augment.crop or dataset.size
        self.count, self.batch_size, self.device, self.seed = len(dataset), batch_size, torch.device(device), seed
        self.rank, self.world = rank, world
        for given in (features, targets or features):
            self._check(dataset, given)
        images = dataset.images if dataset.images.flags.writeable else dataset.images.copy()
        self.images = torch.from_numpy(images).to(self.device)  # (N, S, S, 3) uint8
        self.sentence = features.sentence.to(self.device)
        self.words = None if features.words is None else features.words.to(self.device)
        self.mask = None if features.mask is None else features.mask.to(self.device)
        self.target = None if targets is None else targets.sentence.to(self.device)
        self.offsets = torch.as_tensor(features.offsets).cpu().long()
        self.class_ids = torch.from_numpy(dataset.class_ids.copy())
        self.others = OtherClass(self.class_ids)
        self._order = lru_cache(maxsize=4)(self._permutation)

    @property
    def steps_per_epoch(self) -> int:
        """How many whole batches an epoch fills, over all processes; at least 1."""
        return max(1, self.count // (self.batch_size * self.world))

    def batch(self, step: int) -> Batch:
        """Return batch number `step` >= 0: the same whenever, and in whatever order, it is asked for."""
        generator = torch.Generator().manual_seed(_hash(self.seed, "step", step, self.rank))
        indices = self._indices(step)
        rows = self._captions(indices, generator)
        images = self._pictures(indices, generator)
        mismatched = self._pictures(self.others.draw(indices, generator), generator)
        rows = rows.to(self.device, non_blocking=True)
        return Batch(
            images=images,
            mismatched=mismatched,
            sentence=self.sentence[rows],
            class_ids=self.class_ids[indices].to(self.device, non_blocking=True),
            indices=indices.to(self.device, non_blocking=True),
            words=None if self.words is None else self.words[rows],
            mask=None if self.mask is None else self.mask[rows],
            target=None if self.target is None else self.target[rows],
            step=step,
        )

    def _check(self, dataset: CaptionedImages, features: "CaptionFeatures") -> None:
        if self.count < 2:
            raise InputError(f"dataset: {self.count} pictures; training needs at least two")
        if self.batch_size < 1:
            raise InputError(f"batch_size: {self.batch_size}; give at least 1")
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank: {self.rank}; must be between 0 and world - 1 = {self.world - 1}")
        if not 1 <= self.side <= dataset.size:
            raise InputError(f"crop: {self.side} pixels; the pictures are stored at {dataset.size}, pack them larger")
        if len(features.offsets) != self.count + 1:
            there = len(features.offsets) - 1
            raise InputError(f"features: of {there} pictures, the data set has {self.count}; encode this data set")

    def _permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=torch.Generator().manual_seed(_hash(self.seed, "epoch", epoch)))

    def _indices(self, step: int) -> Tensor:
        first = (step * self.world + self.rank) * self.batch_size
        places = torch.arange(first, first + self.batch_size)
        epochs = places // self.count
        orders = {epoch: self._order(epoch) for epoch in epochs.unique().tolist()}
        return torch.stack([orders[e][p] for e, p in zip(epochs.tolist(), (places % self.count).tolist(), strict=True)])

    def _captions(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        first = self.offsets[indices]
        return first + _uniform(self.offsets[indices + 1] - first, generator)

    def _pictures(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        room = torch.full_like(indices, self.images.shape[1] - self.side + 1)
        top, left = _uniform(room, generator), _uniform(room, generator)
        flip = (torch.rand(len(indices), generator=generator) < 0.5) & self.augment.flip
        along = torch.arange(self.side)
        columns = torch.where(flip[:, None], self.side - 1 - along, along) + left[:, None]  # (B, side)
        rows = along + top[:, None]
        indices, rows, columns = (t.to(self.device, non_blocking=True) for t in (indices, rows, columns))
        crops = self.images[indices[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, side, side, 3)
        return crops.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


class OtherClass:
    """Draws, for pictures, uniformly from the pictures of all other classes.

    Where every picture is of one class it draws any picture but the row's own.
    """

    def __init__(self, class_ids: Tensor) -> None:
        """Sort the pictures by their `class_ids` (N,)."""
        if len(class_ids.unique()) == 1:
            class_ids = torch.arange(len(class_ids))  # each picture a class of its own
        self.order = torch.argsort(class_ids, stable=True)  # pictures, class after class
        counts = torch.bincount(class_ids)
        self.size = counts[class_ids]  # (N,) pictures in the class of each
        self.first = (torch.cumsum(counts, 0) - counts)[class_ids]  # (N,) where that class begins in the order

    def draw(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Return for each of `indices` (B,) the index of a picture of another class."""
        first, size = self.first[indices], self.size[indices]
        place = _uniform(len(self.order) - size, generator)
        return self.order[torch.where(place < first, place, place + size)]  # step over the row's own class


def _uniform(high: Tensor, generator: torch.Generator) -> Tensor:
    """Draw integers uniformly from 0..high - 1, one for each entry of `high`."""
    draws = torch.rand(high.shape, generator=generator, dtype=torch.float64)
    return (draws * high).long().clamp_(max=high - 1)


def _hash(*key: object) -> int:
    """Return a 63-bit seed for `key`: near keys give unrelated seeds, on every platform the same."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
