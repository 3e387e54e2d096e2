"""The Frechet distance of a stream of pictures to a reference: FID, toy FD or CLIP FD, as the extractor is.

Heusel et al. 2017 (https://arxiv.org/abs/1706.08500), equation 6, computed exactly by `frechet.py`. What is kept of the
pictures is their features' moments, in groups, so that the jackknife can leave out one group at a time: constant
memory, 8 F^2 bytes per group (336 MB for Inception's 2,048 features in 10 groups).

A distance of n pictures lies above that of endlessly many, by an amount that falls like 1/n and depends on the system
(Chong and Forsyth 2020, https://arxiv.org/abs/1911.07023): compare equal n only. The literature has 30,000.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Extractor, look, protocol
from t2ilib.metrics.frechet import frechet_from_moments
from t2ilib.metrics.intake import Intake
from t2ilib.metrics.intervals import GROUPS, jackknifed
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.moments import Moments, Reference, check_reference, joined

FEW, WIDE = 10, 512  # groups of the jackknife for features longer than that
BUFFER = 1024  # rows that wait, so that the wide matrices are touched seldom


class Fid:
    """Squared Frechet distance to `reference`; 0 is equal, smaller is better."""

    def __init__(self, extractor: Extractor, reference: Reference, groups: int | None = None):
        """Compare with `reference`, of the same extractor; `groups` of the jackknife: 40, or 10 of long features."""
        check_reference(extractor, reference)
        if reference.count <= reference.size:
            told = f"{reference.count} pictures for {reference.size} features"
            raise InputError(f"reference: {told} are too few; augment them, or use a shorter feature")
        self.extractor, self.reference = extractor, reference
        groups = groups or (GROUPS if extractor.size <= WIDE else FEW)
        self._groups = [Moments(extractor.size) for _ in range(groups)]
        self._intake = Intake()
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1]; `real` is not looked at. Place p belongs to group p mod groups."""
        places = self._intake.take(pictures, positions)
        self._waiting.append((look(self.extractor, pictures).features, places))
        if sum(len(places) for _, places in self._waiting) >= BUFFER:
            self._flush()

    def compute(self) -> Measured:
        """Return the distance with the jackknife's interval; InputError for no more pictures than features."""
        self._flush()
        whole, size = joined(self._groups, self.extractor.size), self.extractor.size
        if whole.count <= size:
            told = f"{whole.count} are too few for {size} features"
            raise InputError(f"pictures: {told}; give more than {size}, or use an extractor with fewer")
        details = protocol(self.extractor) | {"groups": len(self._groups), "reference": dict(self.reference.details)}
        details |= {"reference_count": self.reference.count}
        value, least = self._distance(whole), whole.count - max(group.count for group in self._groups)
        if least <= size or not all(group.count for group in self._groups):
            reason = f"too few pictures for a jackknife in {len(self._groups)} groups of {size} features"
            return Measured(value, None, whole.count, details | {"no_interval": reason})
        low, high = jackknifed(value, self._without, len(self._groups), len(self._groups))
        return Measured(value, (low, high), whole.count, details | {"interval": "jackknife"})

    def state(self) -> dict[str, Tensor]:
        """Return the groups' moments: counts (G,), means (G, F), scatters (G, F, F)."""
        self._flush()
        found = {
            "count": np.array([group.count for group in self._groups]),
            "mean": np.stack([group.mean for group in self._groups]),
            "scatter": np.stack([group.scatter for group in self._groups]),
        }
        return self._intake.state() | {name: torch.from_numpy(value) for name, value in found.items()}

    def merge(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in the moments of other processes, group by group."""
        self._flush()
        for other in others:
            shift = self._intake.join(other)
            for index, group in enumerate(np.roll(np.arange(len(self._groups)), -shift)):
                part = Moments(self.extractor.size)
                part.count = int(other["count"][index])
                part.mean, part.scatter = other["mean"][index].numpy(), other["scatter"][index].numpy()
                self._groups[group].join(part)

    def _flush(self) -> None:
        if self._waiting:
            rows, places = (torch.cat(column).numpy() for column in zip(*self._waiting, strict=True))
            self._waiting = []
            for index, group in enumerate(self._groups):
                group.add(rows[places % len(self._groups) == index])

    def _without(self, kept: np.ndarray) -> float:
        return self._distance(joined([self._groups[index] for index in kept], self.extractor.size))

    def _distance(self, found: Moments) -> float:
        ours = found.mean, found.covariance()
        return frechet_from_moments(*ours, self.reference.mean, self.reference.covariance)
