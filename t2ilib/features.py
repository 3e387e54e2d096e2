"""What passes between the parts: the features of captions, a batch, the pictures that a system paints of them."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Text:
    """The features of B captions: what every text encoder returns and every generator takes."""

    sentence: Tensor  # (B, D) one vector per caption, not normalised
    words: Tensor | None = None  # (B, T, Dw) one vector per token
    mask: Tensor | None = None  # (B, T) bool, True = padding

    def __len__(self) -> int:
        """Number of captions B."""
        return len(self.sentence)

    def __getitem__(self, rows: slice | Tensor | list[int]) -> "Text":
        """Return the captions of these rows: a slice, a list, or a tensor of indices."""
        return Text(**{name: tensor[rows] for name, tensor in self.tensors().items()})

    def to(self, device: torch.device | str) -> "Text":
        """Return the same features on another device."""
        return Text(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields that are there."""
        return {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}


@dataclass
class Batch:
    """B pictures and what belongs to them, all of it on the device."""

    images: Tensor  # (B, 3, H, W) float32 in [-1, 1]
    captions: Tensor  # (K, B) int64, the captions drawn for each: their numbers among all captions of the data set
    class_ids: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, positions in the data set
    text: Text | None = None  # of captions[0]
    second: Text | None = None  # of captions[1], another caption of the same picture
    mismatched: Tensor | None = None  # (B, 3, H, W), each of another class than the same row of images
    target: Tensor | None = None  # (B, D') sentence feature of captions[0] by the CLIP of the CLIP loss
    step: int = 0  # the generator step that it is used in, counted from 0; the loop sets it

    def to_layout(self, layout: torch.memory_format) -> "Batch":
        """Return the batch with its pictures in this memory layout."""
        shown = {name: getattr(self, name) for name in ("images", "mismatched") if getattr(self, name) is not None}
        return replace(self, **{name: pictures.contiguous(memory_format=layout) for name, pictures in shown.items()})


@dataclass(frozen=True)
class Fakes:
    """Painted pictures, and what came along with them."""

    pictures: list[Tensor]  # each (B, 3, H, W) in, or about, [-1, 1], coarse to fine
    more: dict[str, Tensor] = field(default_factory=dict)  # mu, logvar, attention, ...

    @property
    def last(self) -> Tensor:
        """The finest pictures."""
        return self.pictures[-1]

    def detach(self) -> "Fakes":
        """Return the same numbers without their history: for a loss that the generator does not minimise."""
        more = {name: tensor.detach() for name, tensor in self.more.items()}
        return replace(self, pictures=[picture.detach() for picture in self.pictures], more=more)


@dataclass(frozen=True)
class Needs:
    """What a task reads of a batch beyond pictures and sentence features; nothing else is computed or moved."""

    words: bool = False  # word features and their mask
    captions: int = 1  # captions of each picture, 1 or 2
    mismatched: bool = False  # pictures of another class


def on_device(value: Any, device: torch.device) -> Any:
    """Return a tensor, `Text`, or anything else with `.to` on `device`; None stays None."""
    return None if value is None else value.to(device)
