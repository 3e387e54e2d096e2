"""Precision and recall of a generator: are its pictures among the real ones, and are the real ones among its own?

Kynkaanniemi et al. 2019, "Improved Precision and Recall Metric for Assessing Generative Models"
(https://arxiv.org/abs/1904.06991), equations 1 and 2: a set's manifold is the union of balls around its features, each
as wide as the distance to the k-th nearest of the others. Precision is the share of generated pictures in the real
manifold, recall the share of real ones in the generated. Both depend on how many pictures span the manifolds; the paper
has 50,000 of each and k = 3, in VGG-16's features.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Extractor, look, protocol
from t2ilib.metrics.intake import Intake
from t2ilib.metrics.intervals import interval
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.moments import Reference, kept_features
from t2ilib.metrics.rows import MOST, Rows

BLOCK = 500  # rows whose distances to all others lie in memory at a time


class Manifolds:
    """What precision and recall share: the features of either side."""

    def __init__(self, extractor: Extractor, reference: Reference, k: int = 3, most: int = MOST, seed: int = 0):
        """Compare with the features that `reference` keeps; at most `most` of the pictures are kept, by `seed`."""
        if k < 1:
            raise InputError(f"k: {k}; give the number of a neighbour, 1 or more (the paper has 3)")
        self.extractor, self.real, self.k, self.seed = extractor, kept_features(extractor, reference), k, seed
        self.reference = reference
        self._intake, self._rows = Intake(), Rows(most, seed)

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1]; `real` is not looked at."""
        places = self._intake.take(pictures, positions)
        self._rows.add(look(self.extractor, pictures).features, places)

    def state(self) -> dict[str, Tensor]:
        """Return the features that are kept, with their places."""
        return self._intake.state() | self._rows.state()

    def merge(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in the features of other processes."""
        for other in others:
            self._rows.join(other, self._intake.join(other))

    def _sides(self) -> tuple[Tensor, Tensor, dict]:
        """Return the features of pictures and reference, in float64, and what a result says of them."""
        fakes, real = self._rows.ordered().double(), self.real.double()
        details = protocol(self.extractor) | {"k": self.k, "kept": len(fakes), "reference_kept": len(real)}
        return fakes, real, details | {"seed": self.seed, "reference": dict(self.reference.details)}


class Precision(Manifolds):
    """Share of the generated pictures that lie in the real manifold, 0 to 1."""

    def compute(self) -> Measured:
        """Return the share with Wilson's interval, the real manifold as given; InputError for k pictures or fewer."""
        fakes, real, details = self._sides()
        hits = covered(fakes, real, self.k, "reference").double()
        low, high = interval(hits.numpy())
        return Measured(float(hits.mean()), (low, high), self._rows.count, details | {"interval": "Wilson"})


class Recall(Manifolds):
    """Share of the real pictures that lie in the generated manifold, 0 to 1."""

    def compute(self) -> Measured:
        """Return the share; InputError for k pictures or fewer."""
        fakes, real, details = self._sides()
        value = float(covered(real, fakes, self.k, "pictures").double().mean())
        reason = "all shares one manifold of generated pictures, and leaving some out makes it smaller"
        return Measured(value, None, self._rows.count, details | {"no_interval": reason})


def covered(points: Tensor, centres: Tensor, k: int, name: str = "centres") -> Tensor:
    """Return which of points (N, F) lie in the manifold of centres (M, F), M > k: (N,) bool.

    A point on the rim lies within. Distances are computed in blocks: memory grows with M, not with N M.
    """
    if len(centres) <= k:
        raise InputError(f"{name}: {len(centres)} have no {k}. nearest neighbour each; give more")
    own = torch.cat(
        [row.kthvalue(k + 1, dim=1).values for row in _distances(centres, centres)]
    )  # 1 is the point itself
    return torch.cat([(row <= own).any(dim=1) for row in _distances(points, centres)])


def _distances(left: Tensor, right: Tensor) -> Iterator[Tensor]:
    """Yield Euclidean distances (B, M) of blocks of left (N, F) to right (M, F)."""
    return (torch.cdist(block, right) for block in left.split(BLOCK))
