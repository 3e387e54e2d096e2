"""The Frechet distance between two sets of feature vectors.

Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium"
(https://arxiv.org/abs/1706.08500), equation 6. The statistic says nothing about the features: with the 2015 Inception
network's it is the FID; with the toy judge's it is our "toy FD"; with a CLIP network's a "CLIP FD". Distances of
different features, sample sizes or reference sets cannot be compared.
"""

import numpy as np

from t2ilib.errors import InputError


def moments(features: np.ndarray, name: str = "features") -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and unbiased covariance (F, F) of `features` (N, F), in float64.

    Raises `InputError` when a value is not finite, or when N <= F: the covariance of so few samples has no full rank,
    and the distance would mostly measure N.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise InputError(f"{name}: expected the shape (N, F), found {features.shape}; give one vector per picture")
    count, size = features.shape
    if count <= size:
        raise InputError(f"{name}: {count} samples of {size} features are too few; give more than {size}")
    if not np.isfinite(features).all():
        raise InputError(f"{name}: some values are NaN or infinite; look for the pictures that caused them")
    return features.mean(axis=0), np.cov(features, rowvar=False).reshape(size, size)


def frechet_from_moments(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Squared Frechet distance |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of two Gaussians (equation 6).

    tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2): no root of a non-symmetric matrix, nothing
    complex, and the same value when a and b change places.
    """
    overlap = np.linalg.svd(_root(covariance_a) @ _root(covariance_b), compute_uv=False).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * overlap
    return max(float(distance), 0.0)


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Squared Frechet distance between two feature sets (N, F) and (M, F), each seen as a Gaussian; 0 is equal.

    Raises `InputError` as `moments` does, and when the two sets have different sizes F.
    """
    mean_a, covariance_a = moments(features_a, "features_a")
    mean_b, covariance_b = moments(features_b, "features_b")
    if mean_a.shape != mean_b.shape:
        raise InputError(f"features: sizes {len(mean_a)} and {len(mean_b)} differ; use one extractor for both sets")
    return frechet_from_moments(mean_a, covariance_a, mean_b, covariance_b)


def _root(covariance: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix; eigenvalues below zero are rounding."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
