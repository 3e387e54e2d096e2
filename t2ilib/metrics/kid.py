"""KID: the squared maximum mean discrepancy of features under a cubic kernel, without bias.

Binkowski et al. 2018, "Demystifying MMD GANs" (https://arxiv.org/abs/1801.01401), section 4: the kernel is
k(x, y) = (x.y / F + 1)^3. Its expectation does not depend on the number of pictures, as a Frechet distance does; it can
come out below 0. The literature's number is the mean over random subsets, as torchmetrics and torch-fidelity have it.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Extractor, look, protocol
from t2ilib.metrics.intake import Intake
from t2ilib.metrics.intervals import reach
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.moments import Reference, kept_features
from t2ilib.metrics.rows import MOST, Rows

PARTS = 20  # of the jackknife


class Kid:
    """Kernel distance to the features that `reference` keeps; near 0 is equal, smaller is better."""

    def __init__(
        self,
        extractor: Extractor,
        reference: Reference,
        subset_size: int = 1000,
        subsets: int = 100,
        most: int = MOST,
        seed: int = 0,
    ):
        """Compare `subsets` times so many pictures of either side; at most `most` pictures are kept, by `seed`."""
        if subset_size < 2 or subsets < 1:
            raise InputError(f"subsets: {subsets} of {subset_size} pictures; give at least 1 of 2")
        self.extractor, self.real = extractor, kept_features(extractor, reference)
        self.subset_size, self.subsets, self.seed = subset_size, subsets, seed
        self.reference = reference
        self._intake, self._rows = Intake(), Rows(most, seed)

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1]; `real` is not looked at."""
        places = self._intake.take(pictures, positions)
        self._rows.add(look(self.extractor, pictures).features, places)

    def compute(self) -> Measured:
        """Return the mean over subsets; InputError where there are fewer pictures than a subset has."""
        from torchmetrics.image.kid import poly_mmd  # noqa: PLC0415, seconds to import

        fakes, real = self._rows.ordered().double(), self.real.double()
        for name, rows in {"pictures": fakes, "reference": real}.items():
            if len(rows) < self.subset_size:
                told = f"{len(rows)} are too few for subsets of {self.subset_size}"
                raise InputError(f"{name}: {told}; give more, or a smaller subset_size")
        rng, found = np.random.default_rng(self.seed), []
        for _ in range(self.subsets):
            chosen = [rows[rng.choice(len(rows), self.subset_size, replace=False)] for rows in (real, fakes)]
            found.append(float(poly_mmd(*chosen)))
        value, spread = float(np.mean(found)), float(np.std(found))
        details = protocol(self.extractor) | {"subsets": self.subsets, "subset_size": self.subset_size}
        details |= {"std_over_subsets": spread, "kept": len(fakes), "reference_kept": len(real), "seed": self.seed}
        details |= {"reference": dict(self.reference.details)}
        if len(fakes) < 2 * PARTS:
            reason = f"too few pictures for a jackknife in {PARTS} groups"
            return Measured(value, None, self._rows.count, details | {"no_interval": reason})
        error = reach(PARTS) * float(np.hypot(jackknife_error(fakes, real), spread / np.sqrt(self.subsets)))
        interval = (value - error, value + error)
        return Measured(value, interval, self._rows.count, details | {"interval": f"jackknife, {PARTS} groups"})

    def state(self) -> dict[str, Tensor]:
        """Return the features that are kept, with their places."""
        return self._intake.state() | self._rows.state()

    def merge(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in the features of other processes."""
        for other in others:
            self._rows.join(other, self._intake.join(other))


def kernel(left: Tensor, right: Tensor) -> Tensor:
    """Return (x.y / F + 1)^3 of rows (N, F) and (M, F): (N, M)."""
    return (left @ right.T / left.shape[1] + 1) ** 3


def jackknife_error(fakes: Tensor, real: Tensor) -> float:
    """Return the standard error of the unbiased estimate of all rows, fakes (N, F) and real (M, F), over other fakes.

    The estimate is mean_{i != j} k(x_i, x_j) - 2 mean_{ij} k(x_i, y_j) + a term of the reference alone, which cancels.
    Sums over pairs of groups give it without each group in turn.
    """
    groups = [fakes[first::PARTS] for first in range(PARTS)]
    within = torch.tensor([[kernel(one, other).sum() for other in groups] for one in groups])
    within -= torch.diag(torch.stack([kernel_diagonal(group).sum() for group in groups]))
    across = torch.tensor([kernel(group, real).sum() for group in groups])
    left = []
    for index, group in enumerate(groups):
        count = len(fakes) - len(group)
        inner = within.sum() - 2 * within[index].sum() + within[index, index]
        outer = across.sum() - across[index]
        left.append(float(inner / (count * (count - 1)) - 2 * outer / (count * len(real))))
    return float(np.sqrt((PARTS - 1) * np.var(left)))


def kernel_diagonal(rows: Tensor) -> Tensor:
    """Return k(x, x) of each row."""
    return (rows.square().sum(dim=1) / rows.shape[1] + 1) ** 3
