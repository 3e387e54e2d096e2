"""Linear probes: how much of something stands in features so plainly that a linear map can read it off.

Alain and Bengio 2017 (https://arxiv.org/abs/1610.01644). Ridge regression onto one column per class, in its dual form,
so that features may be longer than there are pictures. The features are standardised by the training pictures.
"""

import torch
from torch import Tensor

from t2ilib.errors import InputError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, as shares of the mean squared length of a picture's features
HELD_BACK = 4  # one picture in so many chooses among them


def probe(features: Tensor, labels: Tensor, others: Tensor) -> Tensor:
    """Return the classes (M,) int64 that a linear map reads off features `others` (M, ...).

    It is fitted to features (N, ...) and their classes `labels` (N,) from 0. How strongly it is held back is chosen on
    every fourth of the training pictures. InputError for counts that differ, and for fewer than eight pictures.
    """
    if len(features) != len(labels) or features.shape[1:] != others.shape[1:] or len(labels) < 2 * HELD_BACK:
        told = f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(others.shape)}"
        raise InputError(f"features, labels and others: {told}; give eight pictures or more, with features of one kind")
    features, others = features.flatten(1).double(), others.flatten(1).double()
    mean, spread = features.mean(0), features.std(0) + 1e-6
    features, others = (features - mean) / spread, (others - mean) / spread
    back = torch.arange(len(labels), device=labels.device) % HELD_BACK == 0
    right = {
        strength: _read(features[~back], labels[~back], features[back], strength).eq(labels[back]).double().mean()
        for strength in STRENGTHS
    }
    return _read(features, labels, others, max(right, key=right.get))


def _read(features: Tensor, labels: Tensor, others: Tensor, strength: float) -> Tensor:
    """Return the classes of `others` by ridge regression: argmax of k(others) (K + r I)^-1 (Y - mean) + mean."""
    wanted = torch.nn.functional.one_hot(labels).double()
    products = features @ features.T  # (N, N)
    ridge = strength * products.diagonal().mean()
    weights = torch.linalg.solve(products + ridge * torch.eye(len(labels)).to(products), wanted - wanted.mean(0))
    return (others @ (features.T @ weights) + wanted.mean(0)).argmax(1)
