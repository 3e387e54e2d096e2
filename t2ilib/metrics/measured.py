"""What every metric is: pictures go in batch by batch, one number with its interval and its protocol comes out.

`update` looks at a batch and lets it go, `compute` says what was found. Several processes each measure their part of
the pictures; `state` is what one collected, as tensors that travel, and `merge` joins the others' to one's own. A
picture's place in the whole set (`positions`) makes the outcome the same however the set was dealt out: whatever a
metric splits, groups or draws, it does by places. Without positions pictures are counted as they come, and a merge puts
the others' behind one's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """One number, how far it would move if other pictures had been drawn, and how it came about."""

    value: float
    interval: tuple[float, float] | None  # 95 %; None where there is no honest one: details["no_interval"] says why
    n: int  # pictures that were measured
    details: Mapping[str, Any] = field(default_factory=dict)  # extractor, resize, sizes: plain JSON values


class Metric(Protocol):
    """What can be measured of a stream of pictures."""

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1], and at the real ones of the same captions where these matter.

        `positions`: B places in the whole set, each of which only one process may take. `InputError` names what no
        metric can look at: greyscale, other sizes than before, values beyond [-1, 1], NaN.
        """

    def compute(self) -> Measured:
        """Return what was found so far; `InputError` where there are too few pictures."""

    def state(self) -> dict[str, Tensor]:
        """Return what this process collected, on the CPU."""

    def merge(self, others: Sequence[dict[str, Tensor]]) -> None:
        """Take in what other processes collected, in their order, as if this one had seen it."""
