"""Tasks small enough to see through: one linear generator and one linear discriminator, and their batches."""

import torch
from torch import nn

from t2ilib.features import Batch, Fakes, Text
from t2ilib.task import System, adam


def make_batch(number: int, count: int = 5, classes: int = 2) -> Batch:
    """A batch of pictures (count, 3, 2, 2) and sentence features (count, 3)."""
    generator = torch.Generator().manual_seed(number)
    images = torch.randn(count, 3, 2, 2, generator=generator)
    text = Text(torch.randn(count, 3, generator=generator))
    rows = torch.arange(count)
    return Batch(images, rows[None], rows % classes, rows, text)


class SmallConfig:
    """The few hyper-parameters that the loop and its optimisers read."""

    lr, betas, batch_size, ema, noise_dim = 1e-2, (0.9, 0.999), 5, 0.9, 3


class Small(System):
    """A system of two linear layers, with dropout and statistics, so that its state is more than weights."""

    Config = SmallConfig

    def __init__(self, config=SmallConfig):
        super().__init__(config)
        self.generator = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2))
        self.discriminator = nn.Linear(12, 1)

    def fakes(self, text, noise):
        return Fakes([self.generator(torch.cat([text.sentence, noise], 1)).reshape(-1, 3, 2, 2)])

    def score(self, pictures, text):
        return self.discriminator(pictures.flatten(1)).flatten()

    def discriminator_loss(self, batch, fakes):
        return {"real": -self.score(batch.images, batch.text).mean(), "fake": self.score(fakes.last, batch.text).mean()}

    def generator_loss(self, batch, fakes):
        return {"fake": -self.score(fakes.last, batch.text).mean()}

    def optimizers(self):
        return {role: adam(getattr(self, role).parameters(), 1e-2, (0.9, 0.999)) for role in self.trained}


class SmallBatches:
    """Batches that are not a number from batch `poison` on."""

    batch_size = 5

    def __init__(self, poison=None):
        self.poison = poison

    def batch(self, number):
        batch = make_batch(number)
        if number == self.poison:
            batch.images = batch.images * torch.nan
            batch.text = Text(batch.text.sentence * torch.nan)
        return batch


def small() -> Small:
    torch.manual_seed(0)
    return Small()
