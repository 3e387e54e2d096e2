"""What LPIPS, SSIM and TOPIQ share: one score per picture, their mean, and its bootstrap interval."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.intake import Intake, as_saved, check_pair
from t2ilib.metrics.intervals import bootstrapped
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.rows import Rows


class MeanScore(ABC):
    """Mean of `scores` over all pictures; whoever derives from it says how a batch is scored."""

    name = "score"
    paired = False  # whether each picture is compared with the real one of its caption

    def __init__(self, details: Mapping[str, Any]):
        """Begin with no pictures; `details` say how scores come about."""
        self.details = dict(details)
        self._intake, self._rows = Intake(), Rows()

    @abstractmethod
    def scores(self, pictures: Tensor, real: Tensor | None) -> Tensor:
        """Return one score (B,) per picture (B, 3, H, W), of 8-bit values in [-1, 1]."""

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Score pictures (B, 3, H, W) in [-1, 1], against `real` ones of the same size where the score has it so."""
        places = self._intake.take(pictures, positions)
        if self.paired:
            check_pair(pictures, real)
            real = as_saved(real.to(pictures.device))
        with torch.no_grad():
            found = self.scores(as_saved(pictures), real if self.paired else None).reshape(-1, 1)
        if len(found) != len(pictures) or not found.isfinite().all():
            told = f"{len(found)} scores of {len(pictures)} pictures, {int(found.isfinite().sum())} of them finite"
            raise InputError(f"{self.name}: {told}; it gives one per picture: look at its network's weights")
        self._rows.add(found, places)

    def compute(self) -> Measured:
        """Return the mean with the bootstrap's interval; InputError for no pictures."""
        values = self._rows.ordered()[:, 0].double().numpy()
        value = float(values.mean())
        if len(values) < 2:
            reason = "one picture says nothing about others"
            return Measured(value, None, len(values), self.details | {"no_interval": reason})
        low, high = bootstrapped(values)
        return Measured(value, (low, high), len(values), self.details | {"interval": "bootstrap"})

    def state(self) -> dict[str, Tensor]:
        """Return the scores, with their places."""
        return self._intake.state() | self._rows.state()

    def merge(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in the scores of other processes."""
        for other in others:
            self._rows.join(other, self._intake.join(other))
