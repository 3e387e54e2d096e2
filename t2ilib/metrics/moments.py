"""Mean and covariance of a stream of features, in float64 and in constant memory.

Chan, Golub and LeVeque 1979, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances": the moments
of two parts give those of the whole, without the cancellation of sums of squares.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Extractor, protocol


@dataclass(frozen=True)
class Reference:
    """What is kept of a set of real pictures, as one extractor saw them."""

    mean: np.ndarray  # (F,) float64
    covariance: np.ndarray  # (F, F) float64, unbiased
    count: int  # pictures, augmented ones too
    features: Tensor | None = None  # (K, F) float32: those of K <= count of them, for KID, precision and recall
    details: Mapping[str, Any] = field(default_factory=dict)  # extractor, resize, augmentation: plain JSON values

    @property
    def size(self) -> int:
        """F, the length of a feature vector."""
        return len(self.mean)


class Moments:
    """Count, mean (F,) and scatter (F, F), the sum of (x - mean)(x - mean)^T, of the rows seen so far."""

    def __init__(self, size: int):
        """Begin with no rows of length `size`."""
        self.count, self.mean, self.scatter = 0, np.zeros(size), np.zeros((size, size))

    def add(self, rows: np.ndarray) -> None:
        """Take in rows (B, F)."""
        if len(rows):
            rows = np.asarray(rows, dtype=np.float64)
            mean = rows.mean(axis=0)
            centred = rows - mean
            self._join(len(rows), mean, centred.T @ centred)

    def join(self, other: "Moments") -> None:
        """Take in the rows that another has seen."""
        if other.count:
            self._join(other.count, other.mean, other.scatter)

    def covariance(self) -> np.ndarray:
        """Return the unbiased covariance (F, F); InputError for fewer than two rows."""
        if self.count < 2:
            raise InputError(f"pictures: {self.count} have no covariance; give more")
        return self.scatter / (self.count - 1)

    def _join(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total, between = self.count + count, mean - self.mean
        self.scatter += scatter
        self.scatter += np.outer(between, between * (self.count * count / total))
        self.mean = self.mean + between * (count / total)
        self.count = total


def joined(parts: Iterable[Moments], size: int) -> Moments:
    """Return the moments of all rows that the parts have seen."""
    whole = Moments(size)
    for part in parts:
        whole.join(part)
    return whole


def check_reference(extractor: Extractor, reference: Reference) -> None:
    """Raise InputError for a reference that another extractor, or another resize, has seen."""
    if reference.size != extractor.size:
        told = f"{reference.size} features against {extractor.size} of {extractor.name}"
        raise InputError(f"reference: {told}; compute it with that extractor")
    for key, value in protocol(extractor).items():
        if reference.details.get(key) != value:
            told = reference.details.get(key, "not told")
            raise InputError(f"reference: its {key} is {told}, not {value}; compute it with that")
    mean, covariance = reference.mean, reference.covariance
    if mean.shape != (extractor.size,) or covariance.shape != (extractor.size, extractor.size):
        raise InputError(f"reference: moments of shapes {mean.shape} and {covariance.shape}; compute it anew")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError("reference: some of its moments are NaN or infinite; compute it anew")


def kept_features(extractor: Extractor, reference: Reference) -> Tensor:
    """Return the feature vectors (K, F) that a reference keeps; InputError where it keeps none, or another's."""
    check_reference(extractor, reference)
    if reference.features is None:
        raise InputError("reference: keeps moments, no feature vectors; compute it anew with some kept")
    return reference.features
