"""The Inception Score of any classifier: are pictures clear, each of one class, and all of different ones?

Salimans et al. 2016, "Improved Techniques for Training GANs" (https://arxiv.org/abs/1606.03498), section 4:
IS = exp(mean over x of KL(p(y|x) || p(y))), from 1 to the number of classes. It never sees a real picture, and it
depends on the number of pictures in a split. The literature's ± is the standard deviation over ten splits.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Extractor, look, protocol
from t2ilib.metrics.intake import Intake
from t2ilib.metrics.intervals import LEVEL
from t2ilib.metrics.measured import Measured
from t2ilib.metrics.rows import Rows


class InceptionScore:
    """Mean over `splits` equal parts of the pictures in the order of their places; larger is better."""

    def __init__(self, extractor: Extractor, splits: int = 10):
        """Look through a classifier; all probabilities are kept, 4 kB a picture with Inception's 1,008 classes."""
        if splits < 1:
            raise InputError(f"splits: {splits}; give at least 1 (the literature has 10)")
        self.extractor, self.splits = extractor, splits
        self._intake, self._rows = Intake(), Rows()

    def update(self, pictures: Tensor, real: Tensor | None = None, positions: Sequence[int] | None = None) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1]; `real` is not looked at."""
        places = self._intake.take(pictures, positions)
        probabilities = look(self.extractor, pictures).probabilities
        if probabilities is None:
            raise InputError(f"{self.extractor.name}: names no classes; an Inception Score needs a classifier")
        self._rows.add(probabilities, places)

    def compute(self) -> Measured:
        """Return the mean score; InputError where a split would have no picture."""
        probabilities = self._rows.ordered().double()
        count, classes = probabilities.shape
        if count < self.splits:
            raise InputError(f"pictures: {count} are too few for {self.splits} splits; give more, or fewer splits")
        bounds = [index * count // self.splits for index in range(self.splits + 1)]
        scores = [score(probabilities[first:end]) for first, end in pairwise(bounds)]
        details = protocol(self.extractor) | {
            "classes": classes,
            "splits": self.splits,
            "per_split": count / self.splits,
        }
        details |= {"std_over_splits": float(np.std(scores))}
        value = float(np.mean(scores))
        if self.splits == 1:
            return Measured(value, None, count, details | {"no_interval": "one split says nothing about others"})
        error = stats.sem(scores)
        low, high = stats.t.interval(LEVEL, self.splits - 1, value, error) if error else (value, value)
        return Measured(value, (float(low), float(high)), count, details | {"interval": "Student's t over splits"})

    def state(self) -> dict[str, Tensor]:
        """Return all probabilities, with their places."""
        return self._intake.state() | self._rows.state()

    def merge(self, others: Sequence[Mapping[str, Tensor]]) -> None:
        """Take in the probabilities of other processes."""
        for other in others:
            self._rows.join(other, self._intake.join(other))


def score(probabilities: Tensor) -> float:
    """Return exp(mean KL(p(y|x) || p(y))) of probabilities (N, C), p(y) their mean; 0 log 0 is 0."""
    marginal = probabilities.mean(dim=0)
    divergence = torch.special.xlogy(probabilities, probabilities) - torch.special.xlogy(probabilities, marginal)
    return float(divergence.sum(dim=1).mean().exp())
