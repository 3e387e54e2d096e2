"""Training batches, made on the device from pictures that live there as bytes.

No worker processes and no decoding: cropping, flipping and normalising happen for the whole batch at once. A batch is a
pure function of (seed, number, rank), so a resumed run sees exactly what an uninterrupted one would have seen.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.features import Batch, Needs, Text, on_device
from t2ilib.pictures import to_float

if TYPE_CHECKING:
    from t2ilib.encoders import CaptionFeatures


@dataclass(frozen=True)
class Augment:
    """What happens to each picture, drawn anew each time it is shown."""

    crop: int | None = None  # side of a random square crop in pixels; None keeps the stored size (DF-GAN: 256 of 304)
    flip: bool = True  # mirror half of the pictures
    shift: int = 0  # pixels by which a picture is moved at most, either way, repeating its border


class Batches:
    """The endless sequence of batches of one data set, for one of `world` processes.

    Every epoch shows every picture once, in an order that (seed, epoch) decides; the processes share it without
    overlap, and a batch that an epoch cannot fill continues into the next. Captions are drawn uniformly.
    """

    def __init__(  # noqa: PLR0913
        self,
        dataset: CaptionedImages,
        features: "CaptionFeatures | None",
        batch_size: int,
        device: torch.device | str,
        *,
        needs: Needs | None = None,
        targets: "CaptionFeatures | None" = None,
        augment: Augment | None = None,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Move pictures and sentence features to `device`; impossible arguments raise `InputError`.

        `features` are those of all captions (None: batches hold no text), `targets` the same captions' by the CLIP of
        the CLIP loss. Only what `needs` names is made. Word features stay where they are, and each batch takes its own
        to the device: 100,000 captions of 77 words and 512 numbers are 16 GB.
        """
        self.augment, self.needs = augment or Augment(), needs or Needs()
        self.side = self.augment.crop or dataset.size
        self.count, self.batch_size, self.device, self.seed = len(dataset), batch_size, torch.device(device), seed
        self.rank, self.world = rank, world
        self._check(dataset, features, targets)
        images = dataset.images if dataset.images.flags.writeable else dataset.images.copy()
        self.images = torch.from_numpy(images).to(self.device)  # (N, S, S, 3) uint8
        if features is not None and self.needs.words and features.words is None:
            raise InputError("features: without word features, which this task reads; encode with words=True")
        self.sentence = on_device(None if features is None else features.sentence, self.device)
        self.words = (features.words, features.mask) if features is not None and self.needs.words else ()
        self.target = on_device(None if targets is None else targets.sentence, self.device)
        self.offsets = torch.tensor([0, *map(len, dataset.captions)]).cumsum(0)
        self.class_ids = torch.from_numpy(dataset.class_ids.copy())
        self.others = OtherClass(self.class_ids)
        self._order = lru_cache(maxsize=4)(self._permutation)

    def batch(self, number: int) -> Batch:
        """Return batch `number` >= 0: the same whenever, and in whatever order, it is asked for."""
        generator = torch.Generator().manual_seed(_hash(self.seed, "step", number, self.rank))
        indices = self._indices(number)
        chosen = self._captions(indices, generator)  # (K, B)
        rows = chosen.to(self.device, non_blocking=True)
        images, mismatched = self._pictures(indices, generator), None
        if self.needs.mismatched:
            mismatched = self._pictures(self.others.draw(indices, generator), generator)
        texts = [self._text(*each) for each in zip(chosen, rows, strict=True)]
        return Batch(
            images=images,
            captions=rows,
            class_ids=self.class_ids[indices].to(self.device, non_blocking=True),
            indices=indices.to(self.device, non_blocking=True),
            text=texts[0],
            second=texts[1] if len(texts) > 1 else None,
            mismatched=mismatched,
            target=None if self.target is None else self.target[rows[0]],
        )

    def _check(self, dataset: CaptionedImages, *features: "CaptionFeatures | None") -> None:
        if self.count < 2:
            raise InputError(f"dataset: {self.count} pictures; training needs at least two")
        if self.batch_size < 1:
            raise InputError(f"batch_size: {self.batch_size}; give at least 1")
        if not 0 <= self.rank < self.world:
            raise InputError(f"rank: {self.rank}; must be between 0 and world - 1 = {self.world - 1}")
        if not 1 <= self.side <= dataset.size:
            raise InputError(f"crop: {self.side} pixels; the pictures are stored at {dataset.size}, pack them larger")
        if not 0 <= self.augment.shift < self.side:
            raise InputError(f"shift: {self.augment.shift} pixels; must be from 0 to below the side of {self.side}")
        counts = [len(own) for own in dataset.captions]
        for given in filter(None, features):
            if given.offsets.diff().tolist() != counts:
                there = f"{len(given)} pictures with {len(given.sentence)} captions"
                raise InputError(f"features: of {there}, the data set has {self.count} with {sum(counts)}; encode it")

    def _permutation(self, epoch: int) -> Tensor:
        return torch.randperm(self.count, generator=torch.Generator().manual_seed(_hash(self.seed, "epoch", epoch)))

    def _indices(self, number: int) -> Tensor:
        first = (number * self.world + self.rank) * self.batch_size
        places = torch.arange(first, first + self.batch_size)
        epochs = places // self.count
        orders = {epoch: self._order(epoch) for epoch in epochs.unique().tolist()}
        return torch.stack([orders[e][p] for e, p in zip(epochs.tolist(), (places % self.count).tolist(), strict=True)])

    def _captions(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """Draw captions (K, B) of the pictures; the second differs from the first where there are two."""
        first, count = self.offsets[indices], self.offsets.diff()[indices]
        places = [_uniform(count, generator)]
        if self.needs.captions > 1:
            places.append((places[0] + 1 + _uniform((count - 1).clamp(min=1), generator)) % count)
        return first + torch.stack(places)

    def _text(self, chosen: Tensor, rows: Tensor) -> Text | None:
        """Return the features of captions, whose numbers (B,) are given on the CPU and on the device."""
        if self.sentence is None:
            return None
        words = (part[chosen.to(part.device)].to(self.device, non_blocking=True) for part in self.words)
        return Text(self.sentence[rows], *words)

    def _pictures(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        stored, most = self.images.shape[1], self.augment.shift
        room = torch.full_like(indices, stored - self.side + 1 + 2 * most)
        top, left = _uniform(room, generator) - most, _uniform(room, generator) - most
        flip = (torch.rand(len(indices), generator=generator) < 0.5) & self.augment.flip
        along = torch.arange(self.side)
        columns = torch.where(flip[:, None], self.side - 1 - along, along) + left[:, None]  # (B, side)
        rows = along + top[:, None]
        rows, columns = rows.clamp(0, stored - 1), columns.clamp(0, stored - 1)  # what is uncovered repeats the border
        indices, rows, columns = (t.to(self.device, non_blocking=True) for t in (indices, rows, columns))
        return to_float(self.images[indices[:, None, None], rows[:, :, None], columns[:, None, :]])


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
