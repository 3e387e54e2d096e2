"""Small networks, pictures and independent computations for the tests of metrics."""

import numpy as np
import torch

from t2ilib.metrics.extractors import Custom, Seen
from t2ilib.metrics.moments import Reference

SIZE = 6  # features of the small network


def pictures(count: int, seed: int = 0, side: int = 12) -> torch.Tensor:
    """Pictures (count, 3, side, side) in [-1, 1]: noise of several strengths around several colours."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.rand(count, 3, 1, 1, generator=generator)
    noise = torch.rand(count, 3, side, side, generator=generator)
    return (colours + 0.5 * noise * colours.flip(1)).clamp(0, 1) * 2 - 1


def network(seen: torch.Tensor) -> Seen:
    """Features (B, 6): mean and spread of the channels; probabilities (B, 3): which channel is brightest."""
    means, spreads = seen.mean(dim=(2, 3)), seen.std(dim=(2, 3))
    return Seen(torch.cat([means, 3 * spreads], dim=1), (4 * means).softmax(dim=1))


def extractor(name: str = "small") -> Custom:
    return Custom(network, SIZE, name)


def features(images: torch.Tensor) -> torch.Tensor:
    return extractor()(images).features


def reference(images: torch.Tensor) -> Reference:
    """What is kept of all these pictures, by NumPy."""
    return kept(features(images), "small")


def fill(metric, images, batch=7, real=None, positions=None):
    """Show a metric pictures in batches; returns it."""
    for first in range(0, len(images), batch):
        part = slice(first, first + batch)
        metric.update(
            images[part], None if real is None else real[part], None if positions is None else positions[part]
        )
    return metric


class Fixed:
    """An extractor of features that were made beforehand: each picture holds the number of its row."""

    name, resize = "fixed", "none"

    def __init__(self, rows):
        self.rows = torch.as_tensor(rows, dtype=torch.float32)
        self.size = self.rows.shape[1]

    def __call__(self, shown: torch.Tensor) -> Seen:
        found = self.rows[(shown[:, 0, 0, 0] * 1e5).round().long()]
        return Seen(found, found.softmax(dim=1))


def numbered(count: int) -> torch.Tensor:
    """Pictures for `Fixed`."""
    return (torch.arange(count) / 1e5)[:, None, None, None].expand(-1, 3, 2, 2)


def kept(rows, name: str = "fixed") -> Reference:
    """A reference of these features, by NumPy."""
    rows = torch.as_tensor(rows, dtype=torch.float32)
    table = rows.double().numpy()
    return Reference(table.mean(0), np.cov(table.T).reshape(table.shape[1], -1), len(table), rows, told(name))


def told(name: str = "fixed") -> dict:
    """What a reference says of its extractor."""
    return {"extractor": name, "resize": "none"}
