"""What every metric asks of the pictures it is shown, and the places that it counts them by."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from t2ilib.errors import InputError

SLACK = 1e-3  # beyond [-1, 1], for rounding; a 255th is eight times as much


def check_pictures(pictures: Tensor, name: str = "pictures") -> None:
    """Raise InputError for anything but pictures (B >= 1, 3, H, W) in [-1, 1]."""
    if not isinstance(pictures, Tensor) or not pictures.is_floating_point():
        kind = str(getattr(pictures, "dtype", type(pictures).__name__)).removeprefix("torch.")
        raise InputError(f"{name}: are {kind}; give floating-point ones in [-1, 1] (t2ilib.pictures.to_float)")
    shape = tuple(pictures.shape)
    if len(shape) == 4 and shape[1] == 1:
        raise InputError(f"{name}: {shape} are greyscale; repeat their channel three times: expand(-1, 3, -1, -1)")
    if len(shape) != 4 or shape[1] != 3 or 0 in shape:
        raise InputError(f"{name}: of shape {shape}; give (B, 3, H, W), at least one")
    low, high = (float(bound) for bound in pictures.detach().float().aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name}: some are NaN or infinite; take another checkpoint, or look at the picture files")
    if low < -1 - SLACK or high > 1 + SLACK:
        raise InputError(f"{name}: in [{low:.3g}, {high:.3g}]; give them in [-1, 1] (t2ilib.pictures.to_float)")


def check_pair(pictures: Tensor, real: Tensor | None) -> None:
    """Raise InputError unless every one of `pictures` has a real one of its size."""
    if real is None:
        raise InputError("real: none given; this metric compares each picture with the real one of its caption")
    check_pictures(real, "real")
    if real.shape != pictures.shape:
        told = f"{tuple(real.shape)} against pictures of {tuple(pictures.shape)}"
        raise InputError(f"real: {told}; give one per picture, of its size (t2ilib.pictures.resized)")


def as_saved(pictures: Tensor) -> Tensor:
    """Return pictures in [-1, 1] as float32 with the 256 values that 8-bit files hold, on their device.

    So a metric gives the same number for pictures in memory and for their PNG files.
    """
    return to_bytes(pictures).div_(127.5).sub_(1)


def to_bytes(pictures: Tensor) -> Tensor:
    """Return pictures in [-1, 1] as whole float32 numbers 0..255, rounded as `t2ilib.pictures.to_uint8` does."""
    return pictures.detach().float().clamp(-1, 1).add(1).mul_(127.5).round_()


class Intake:
    """The door of a metric: checks each batch and says which places its pictures have in the whole set."""

    def __init__(self):
        """Wait for the first picture."""
        self.size: list[int] | None = None  # (H, W) of every picture
        self.seen: set[int] = set()  # positions that were given
        self.counted: int | None = 0  # pictures that came without positions; None where positions are given

    def take(self, pictures: Tensor, positions: Sequence[int] | Tensor | None = None) -> Tensor:
        """Return the places (B,) int64 of pictures (B, 3, H, W); InputError for what cannot be measured."""
        check_pictures(pictures)
        self._check_size(list(pictures.shape[-2:]))
        if positions is None:
            return self._count(len(pictures))
        places = torch.as_tensor(positions).detach().cpu()
        if places.shape != (len(pictures),) or places.is_floating_point() or bool((places < 0).any()):
            raise InputError(f"positions: of shape {tuple(places.shape)}; give a whole number >= 0 for every picture")
        if self.counted:
            raise InputError("positions: earlier pictures came without; give them for all, or for none")
        self.counted = None
        self._add(places.tolist())
        return places.to(torch.int64)

    def state(self) -> dict[str, Tensor]:
        """Return size and count as tensors; -1 stands for None."""
        size = [-1, -1] if self.size is None else self.size
        seen = torch.tensor(sorted(self.seen), dtype=torch.int64)
        counted = torch.tensor(-1 if self.counted is None else self.counted)
        return {"size": torch.tensor(size), "counted": counted, "seen": seen}

    def join(self, state: Mapping[str, Tensor]) -> int:
        """Take in the state of another process; return by how much its places move, so that they follow one's own."""
        size, counted = state["size"].tolist(), int(state["counted"])
        if size == [-1, -1]:
            return 0  # it saw nothing
        if self.size is not None and (counted < 0) != (self.counted is None):
            raise InputError("positions: one process gave them, another did not; give them in all, or in none")
        self._check_size(size)
        if counted < 0:
            self.counted = None
            self._add(state["seen"].tolist())
            return 0
        shift, self.counted = self.counted, self.counted + counted
        return shift

    def _add(self, places: list[int]) -> None:
        new = set(places)
        twice = self.seen & new or (
            {place for place in new if places.count(place) > 1} if len(new) < len(places) else ()
        )
        if twice:
            raise InputError(f"positions: {min(twice)} came twice; show each picture once, to one process")
        self.seen |= new

    def _count(self, count: int) -> Tensor:
        if self.counted is None:
            raise InputError("positions: earlier pictures had them; give them for all, or for none")
        first, self.counted = self.counted, self.counted + count
        return torch.arange(first, self.counted)

    def _check_size(self, size: list[int]) -> None:
        if self.size is not None and size != self.size:
            told = f"{size[1]} x {size[0]} pixels after {self.size[1]} x {self.size[0]}"
            raise InputError(f"pictures: {told}; resize all to one size (t2ilib.pictures.resized)")
        self.size = size
