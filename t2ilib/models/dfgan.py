"""DF-GAN: one stage, text in every block, one discriminator (Tao et al. 2022, https://arxiv.org/abs/2008.05865).

Figure 2: the generator upsamples a 4x4 map of the noise; in every block the sentence scales and shifts all channels.
The discriminator gives one logit for picture and sentence together (one-way output) and is kept flat around real
pictures with their own sentence (matching-aware gradient penalty): the generator's way there is short and smooth.

Difference of the released code, and of our defaults, from the paper: the penalty takes one norm over picture and
sentence, where the paper, as others quote it, adds two (`summed_norms`). `two_way` is the design that the paper
compares with (figure 4a): an unconditional logit beside the conditional one. `noise` with a truncation is the released
evaluation's.
Differences of ours from the released code: the penalty is taken per sample without a root, (sum g^2)^3, so that it has
a gradient at zero. Where a discriminator block keeps its number of channels, the released code builds a 1x1 shortcut
and does not use it: so do we, to read its files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from t2ilib import losses
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Text
from t2ilib.models.layers import DownBlock, FusionUpBlock, MatchingHead
from t2ilib.settings import BATCH, COUNT, POSITIVE, SHARE, WEIGHT, WIDTH, Range, check_ranges
from t2ilib.task import System


@dataclass(frozen=True)
class DFGANConfig:
    """Hyper-parameters; the defaults are the paper's for birds, but for the penalty's norm, which is the released."""

    image_size: int = 256  # pixels; a power of two from 32 to 256
    noise_dim: Annotated[int, WIDTH] = 100  # Z
    embedding_dim: Annotated[int, WIDTH] = 256  # D, DAMSM's sentence feature
    nf: Annotated[int, WIDTH] = 32  # channels at full size, doubled with every halving up to 8 nf
    lr: Annotated[float, POSITIVE] = 1e-4  # Adam, generator
    discriminator_lr: Annotated[float, POSITIVE] = 4e-4  # Adam, discriminator and head
    betas: Annotated[tuple[float, float], SHARE] = (0.0, 0.9)  # Adam
    batch_size: Annotated[int, BATCH] = 32
    ema: Annotated[float, SHARE] = 0.0  # decay per step of the averaged generator; the paper keeps none
    penalty: Annotated[float, WEIGHT] = 2.0  # k of the matching-aware penalty; 0 switches it off
    penalty_power: Annotated[float, Range(least=2, most=100)] = 6.0  # p
    penalty_every: Annotated[int, COUNT] = 1  # steps from one penalty to the next, so many times as heavy; 4: lazy
    summed_norms: bool = False  # the paper's penalty: norms of picture and sentence gradient added; released: joint
    two_way: bool = False  # an unconditional logit too, the design that one-way output replaces

    def __post_init__(self) -> None:
        """Raise InputError for sizes that the networks cannot have."""
        if self.image_size not in (32, 64, 128, 256):
            raise InputError(f"image_size = {self.image_size}: DF-GAN draws 32, 64, 128 or 256 pixels")
        check_ranges(self, "model.")

    @classmethod
    def tiny(cls, **changes: Any) -> "DFGANConfig":
        """Return sizes for tests: 32 pixels, a few thousand parameters."""
        sizes = {"image_size": 32, "noise_dim": 8, "embedding_dim": 16, "nf": 4, "batch_size": 4}
        return cls(**{**sizes, **changes})

    @property
    def channels(self) -> list[int]:
        """Channels from full size down to 4x4: nf, 2nf, 4nf, 8nf, 8nf, ..."""
        return [self.nf * min(2**halving, 8) for halving in range(self.image_size.bit_length() - 2)]


class Generator(nn.Module):
    """Noise (B, Z) and sentence features (B, D) to pictures (B, 3, H, H) in [-1, 1]."""

    def __init__(self, config: DFGANConfig):
        super().__init__()
        widths = config.channels[::-1]
        self.start = nn.Linear(config.noise_dim, widths[0] * 16)
        condition_dim = config.noise_dim + config.embedding_dim
        self.blocks = nn.ModuleList(FusionUpBlock(*channels, condition_dim) for channels in pairwise(widths))
        self.picture = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(config.nf, 3, 3, padding=1), nn.Tanh())

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Return pictures; the condition of every block is noise and sentence side by side."""
        condition = torch.cat([noise, sentence], 1)  # (B, Z + D)
        x = self.start(noise).unflatten(1, (-1, 4, 4))  # (B, 8nf, 4, 4)
        for block in self.blocks:
            x = block(x, condition)  # 8x8, 16x16, ... HxH
        return self.picture(x)


class Discriminator(nn.Module):
    """Pictures (B, 3, H, H) to features (B, 8nf, 4, 4); its `head` turns those and a sentence into a logit."""

    def __init__(self, config: DFGANConfig):
        super().__init__()
        widths = config.channels
        self.start = nn.Conv2d(3, widths[0], 3, 1, 1)
        self.blocks = nn.ModuleList(DownBlock(*channels) for channels in pairwise(widths))
        self.head = MatchingHead(widths[-1], config.embedding_dim, 2 * config.nf)
        self.unconditional = MatchingHead(widths[-1], 0, 2 * config.nf) if config.two_way else None

    def forward(self, image: Tensor) -> Tensor:
        """Return the features, before any text."""
        x = self.start(image)
        for block in self.blocks:
            x = block(x)
        return x


class DFGAN(System):
    """DF-GAN: see `DFGANConfig`."""

    Config = DFGANConfig

    def __init__(self, config: DFGANConfig | None = None, encoders: Mapping[str, Any] | None = None):
        super().__init__(config or DFGANConfig())
        self.generator = Generator(self.config)
        self.discriminator = Discriminator(self.config)

    @property
    def head(self) -> nn.Module:
        """Features (B, 8nf, 4, 4) and sentence features (B, D) to logits (B,)."""
        return self.discriminator.head

    def fakes(self, text: Text, noise: Tensor) -> Fakes:
        """Return one picture per text, (B, 3, H, H)."""
        return Fakes([self.generator(noise, text.sentence)])

    def score(self, pictures: Tensor, text: Text) -> Tensor:
        """Return the discriminator's logits (B,) of pictures beside texts."""
        return self.head(self.discriminator(pictures), text.sentence)

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `real`, `fake`, `mismatched`, `penalty` (equation 1): minimised over D and its head."""
        penalty, real, features = self.penalised(batch)
        fake_features = self.discriminator(fakes.last)
        fake = self.head(fake_features, batch.text.sentence)
        mismatched = self.head(features.roll(-1, 0), batch.text.sentence)
        terms = losses.hinge_discriminator(real, fake, mismatched)
        if self.config.two_way:
            unconditional = losses.hinge_discriminator(self.unconditional(features), self.unconditional(fake_features))
            terms |= {f"unconditional_{name}": term for name, term in unconditional.items()}
        return terms if penalty is None else terms | {"penalty": penalty}

    def penalised(self, batch: Batch) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return penalty (scalar), logits (B,) and features (B, C, 4, 4) of real pictures with their sentences.

        The penalty is None in steps that `penalty_every` leaves out, and where its weight is 0.
        """

        def score(images: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
            features = self.discriminator(images)
            return self.head(features, sentence), features

        config = self.config
        left_out = config.penalty_every > 1 and batch.step % config.penalty_every != 0
        if not config.penalty or left_out:
            return None, *score(batch.images, batch.text.sentence)
        weight = config.penalty * config.penalty_every
        return losses.matching_aware_penalty(
            score, batch.images, batch.text.sentence, weight, config.penalty_power, config.summed_norms
        )

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the term `adversarial`: minimised over G."""
        features = self.discriminator(fakes.last)
        terms = {"adversarial": losses.hinge_generator(self.head(features, batch.text.sentence))}
        if self.config.two_way:
            terms["unconditional_adversarial"] = losses.hinge_generator(self.unconditional(features))
        return terms

    def unconditional(self, features: Tensor) -> Tensor:
        """Return logits (B,) of the second head, which sees no text (only with `two_way`)."""
        return self.discriminator.unconditional(features, features.new_zeros(len(features), 0))
