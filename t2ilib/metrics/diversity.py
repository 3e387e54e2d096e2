"""Diversity per caption: how much do pictures of one caption differ when only the noise changes?

A generator that ignores its noise draws one picture per caption and can still have a good Frechet distance and
R-precision over many captions; this number shows it.
"""

import numpy as np

from t2ilib.errors import InputError


def diversity(features: np.ndarray, reference: np.ndarray | None = None) -> float:
    """The mean of `diversities`."""
    return float(diversities(features, reference).mean())


def diversities(features: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
    """Mean Euclidean distance between the K pictures of each caption, (captions,).

    `features` (captions, K, F). With `reference` (N, F), features of real pictures of all kinds, the distance is
    divided by the mean distance between those: 0 is one picture per caption, 1 is as varied as the whole real set
    (more than a caption should leave open). Raises `InputError` for no captions, K < 2, values that are not finite, and
    a reference that is one picture over and over.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 3 or not len(features) or features.shape[1] < 2:
        raise InputError(f"features: expected (captions, K >= 2, F), found {features.shape}; draw more per caption")
    distances = np.array([mean_pairwise_distance(pictures) for pictures in features])
    if reference is None:
        return distances
    unit = mean_pairwise_distance(reference)
    if unit == 0:
        raise InputError("reference: its pictures are all alike, so nothing can be as varied; give other pictures")
    return distances / unit


def mean_pairwise_distance(features: np.ndarray) -> float:
    """Mean Euclidean distance between different rows of `features` (N, F), N >= 2."""
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2:
        raise InputError(f"features: expected the shape (N, F), found {features.shape}; give one vector per picture")
    if not np.isfinite(features).all():
        raise InputError("features: some values are NaN or infinite; look for the pictures that caused them")
    count = len(features)
    if count < 2:
        raise InputError(f"features: {count} pictures have no distance from each other; give at least 2")
    total = sum(np.linalg.norm(features[i + 1 :] - features[i], axis=1).sum() for i in range(count - 1))
    return float(total / (count * (count - 1) / 2))
