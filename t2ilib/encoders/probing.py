"""Linear probes: how much of something stands in features so plainly that a linear map can read it off.

Alain and Bengio 2017 (https://arxiv.org/abs/1610.01644). Ridge regression onto one column per class, in its dual form,
so that features may be longer than there are pictures. The features are standardised by the training pictures.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.errors import InputError

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # of the ridge, as shares of the mean squared length of a picture's features
HELD_BACK = 4  # one picture in so many chooses among them


def probe(features: Tensor, labels: Mapping[str, Tensor], others: Tensor) -> dict[str, Tensor]:
    """Return the classes (M,) int64 that linear maps read off features `others` (M, ...), by what is asked.

    They are fitted to features (N, ...) and their classes, asked -> `labels` (N,) from 0. How strongly a map is held
    back is chosen on every fourth of the training pictures. InputError for counts that differ, and for fewer than eight
    pictures.
    """
    sizes = {len(each) for each in labels.values()}
    if sizes != {len(features)} or features.shape[1:] != others.shape[1:] or len(features) < 2 * HELD_BACK:
        told = f"{tuple(features.shape)}, {sorted(sizes)} and {tuple(others.shape)}"
        raise InputError(f"features, labels and others: {told}; give eight pictures or more, with features of one kind")
    features, others = features.flatten(1).double(), others.flatten(1).double()
    mean, spread = features.mean(0), features.std(0) + 1e-6
    features, others = (features - mean) / spread, (others - mean) / spread
    products = features @ torch.cat([features, others]).T  # (N, N + M)
    wanted = {name: F.one_hot(each).double() for name, each in labels.items()}
    gram, across = products.split([len(features), len(others)], 1)
    back = torch.arange(len(features), device=features.device) % HELD_BACK == 0
    own, kept = gram[~back], {name: each[~back] for name, each in wanted.items()}
    tried = {one: _read(own[:, ~back], own[:, back], kept, one) for one in STRENGTHS}
    right = {
        one: {name: int((read[name] == labels[name][back]).sum()) for name in labels} for one, read in tried.items()
    }
    best = {name: max(STRENGTHS, key=lambda one: right[one][name]) for name in labels}
    found = {}
    for one in dict.fromkeys(best.values()):
        found |= _read(gram, across, {name: each for name, each in wanted.items() if best[name] == one}, one)
    return {name: found[name] for name in labels}


def _read(gram: Tensor, across: Tensor, wanted: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
    """Return the classes by ridge regression: argmax of k' (K + r I)^-1 (Y - mean) + mean, for every Y (N, classes).

    K are the products of the training features with each other, `gram` (N, N), k those with the others (N, M).
    """
    ridge = strength * gram.diagonal().mean()
    means = {name: each.mean(0) for name, each in wanted.items()}
    centred = torch.cat([each - means[name] for name, each in wanted.items()], 1)
    answers = across.T @ torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), centred)
    parts = answers.split([len(mean) for mean in means.values()], 1)
    return {name: (part + means[name]).argmax(1) for name, part in zip(means, parts, strict=True)}
