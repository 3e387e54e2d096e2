"""GAN-CLS: a DCGAN that reads a sentence (Reed et al. 2016, https://arxiv.org/abs/1605.05396, figure 2).

Both networks project the sentence feature to 128 numbers. The generator upsamples noise and condition by transposed
convolutions; the discriminator downsamples the picture to 4x4, lays the condition over that map and gives one logit.
It learns from three kinds of pairs: real picture with its caption, fake with its caption, and real picture of another
class with this caption (CLS). Without the third it could ignore the text, and the generator then would, too.

Defaults are the stabilised reimplementation's but for `joint`. Differences of that released code from the paper, which
are options here: it smooths the real label to 0.9 and adds feature matching and L1 to the generator's loss (paper: 1,
0, 0), it does not halve the two negative terms (`halve_negatives`), and its discriminator lacks the paper's 1x1
convolution over picture and text (`joint`), which the paper's authors' own code has. Without that layer the logit is a
sum of one term of the picture and one of the text: whether they fit cannot be seen, and the mismatched pairs teach
nothing about it.
Differences of ours from the released code: the logit is not squashed, the losses do that exactly; a step's fakes are
made once, detached for the discriminator, and serve the generator too, where the released code makes them twice; a
sample is not similar to itself in minibatch discrimination (`self_term` of `MinibatchSimilarity` is the released
behaviour).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from t2ilib import losses
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Needs, Text
from t2ilib.models.layers import MinibatchSimilarity, TextProjection, initialise_dcgan
from t2ilib.settings import BATCH, POSITIVE, SHARE, WEIGHT, WIDTH, Range, check_ranges
from t2ilib.task import System


@dataclass(frozen=True)
class DCGANSizes:
    """What decides the two networks, which WGAN shares."""

    image_size: int = 64  # pixels; 32 and 128 have one stage less and one more
    noise_dim: Annotated[int, WIDTH] = 100  # Z
    embedding_dim: Annotated[int, WIDTH] = 1024  # D, the char-CNN-RNN's sentence feature
    projected_dim: Annotated[int, WIDTH] = 128  # P, the condition that each network makes of it
    ngf: Annotated[int, WIDTH] = 64  # generator channels before the picture; doubled with every stage down to 4x4
    ndf: Annotated[int, WIDTH] = 64  # discriminator channels after its first convolution; doubled with every stage
    text: bool = True  # False: vanilla, both networks ignore the sentence
    joint: bool = True  # 1x1 convolution over picture and text before the logit, as in the paper; released code: False
    batch_norm: bool = True  # in the discriminator; a critic with a gradient penalty per sample must not have it
    minibatch_discrimination: bool = False  # similarities within the batch help the discriminator see mode collapse
    batch_size: Annotated[int, BATCH] = 64

    def __post_init__(self) -> None:
        """Raise InputError for sizes that the networks cannot have."""
        if self.image_size not in (32, 64, 128):
            raise InputError(f"image_size = {self.image_size}: these networks draw 32, 64 or 128 pixels")
        check_ranges(self, "model.")

    @classmethod
    def tiny(cls, **changes: Any) -> "DCGANSizes":
        """Return sizes for tests: 32 pixels, a few thousand parameters."""
        sizes = {"image_size": 32, "noise_dim": 8, "embedding_dim": 16, "projected_dim": 8, "ngf": 8, "ndf": 8}
        return cls(**{**sizes, "batch_size": 4, **changes})

    @property
    def condition_dim(self) -> int:
        """Length of the condition that a network gets: 0 without text."""
        return self.projected_dim if self.text else 0

    def channels(self, first: int) -> list[int]:
        """Return channels per stage from the largest map to 4x4: `first`, doubled each time."""
        return [first * 2**stage for stage in range(self.image_size.bit_length() - 3)]


@dataclass(frozen=True)
class GANCLSConfig(DCGANSizes):
    """Hyper-parameters; the defaults are the stabilised reimplementation's, but for `joint`."""

    lr: Annotated[float, POSITIVE] = 2e-4  # Adam, both networks
    betas: Annotated[tuple[float, float], SHARE] = (0.5, 0.999)  # Adam
    ema: Annotated[float, SHARE] = 0.0  # decay per step of the averaged generator; paper and reimplementation keep none
    smoothing: Annotated[float, Range(above=0.5, most=1)] = 0.9  # label of real pairs; paper 1
    feature_matching: Annotated[float, WEIGHT] = 100.0  # weight; paper 0
    l1: Annotated[float, WEIGHT] = 50.0  # weight; paper 0
    mismatched: bool = True  # CLS: real pictures of another class with this caption are negatives
    halve_negatives: bool = False  # paper True
    interpolation: bool = False  # GAN-INT: the generator also answers captions between two captions
    beta: Annotated[float, Range(least=0, most=1)] = 0.5  # GAN-INT: share of the first caption


class Generator(nn.Module):
    """Noise (B, Z) and sentence features (B, D) to pictures (B, 3, H, H) in [-1, 1]."""

    def __init__(self, config: DCGANSizes):
        super().__init__()
        self.projection = TextProjection(config.embedding_dim, config.projected_dim) if config.text else None
        widths = config.channels(config.ngf)[::-1]
        stages = [nn.ConvTranspose2d(config.condition_dim + config.noise_dim, widths[0], 4, 1, 0, bias=False)]
        for width, following in zip(widths, [*widths[1:], 3], strict=True):
            stages += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, following, 4, 2, 1, bias=False)]
        self.stages = nn.Sequential(*stages, nn.Tanh())
        self.apply(initialise_dcgan)

    def forward(self, noise: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return pictures; `embedding` is not read by a network without text."""
        if self.projection is not None:
            noise = torch.cat([self.projection(embedding), noise], 1)  # (B, P + Z)
        return self.stages(noise[:, :, None, None])  # 1x1 -> 4x4 -> 8x8 ... -> HxH


class Discriminator(nn.Module):
    """Pictures (B, 3, H, H) and sentence features (B, D) to logits (B,) and features (B, C, 4, 4)."""

    def __init__(self, config: DCGANSizes):
        super().__init__()
        widths = config.channels(config.ndf)

        def after(convolution: nn.Module, width: int) -> list[nn.Module]:
            return [convolution, *([nn.BatchNorm2d(width)] if config.batch_norm else []), nn.LeakyReLU(0.2)]

        stages = [nn.Conv2d(3, widths[0], 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for width, following in pairwise(widths):
            stages += after(nn.Conv2d(width, following, 4, 2, 1, bias=False), following)
        self.stages = nn.Sequential(*stages)
        sizes = config.embedding_dim, config.projected_dim
        self.projection = TextProjection(*sizes, batch_norm=config.batch_norm) if config.text else None
        width = widths[-1] + config.condition_dim
        self.joint = None
        if config.joint and config.text:
            self.joint = nn.Sequential(*after(nn.Conv2d(width, widths[-1], 1, bias=False), widths[-1]))
            width = widths[-1]
        self.head = nn.Conv2d(width, 1, 4, bias=False)
        self.similarity = None
        if config.minibatch_discrimination:
            self.similarity = nn.Sequential(
                MinibatchSimilarity(widths[-1] * 16, 128, 16), nn.Linear(128, 1, bias=False)
            )
        self.apply(initialise_dcgan)

    def forward(self, image: Tensor, embedding: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return (logits, features): a positive logit says that the picture is real and fits the sentence."""
        features = self.stages(image)  # (B, C, 4, 4)
        joint = features
        if self.projection is not None:
            condition = self.projection(embedding)[:, :, None, None].expand(-1, -1, 4, 4)
            joint = torch.cat([features, condition], 1)  # (B, C + P, 4, 4)
        if self.joint is not None:
            joint = self.joint(joint)  # (B, C, 4, 4); without it the logit is a(picture) + b(text)
        logits = self.head(joint).flatten()  # (B,)
        if self.similarity is not None:  # one linear layer over map and similarities, written as two
            logits = logits + self.similarity(features).flatten()
        return logits, features


class GANCLS(System):
    """GAN-CLS, GAN-INT, both, or the vanilla GAN: see `GANCLSConfig`."""

    Config = GANCLSConfig

    def __init__(self, config: GANCLSConfig | None = None, encoders: Mapping[str, Any] | None = None):
        super().__init__(config or GANCLSConfig())
        self.generator = Generator(self.config)
        self.discriminator = Discriminator(self.config)
        self.needs = Needs(mismatched=self.config.mismatched and self.config.text)

    def fakes(self, text: Text, noise: Tensor) -> Fakes:
        """Return one picture per text, (B, 3, H, H)."""
        return Fakes([self.generator(noise, text.sentence)])

    def score(self, pictures: Tensor, text: Text) -> Tensor:
        """Return the discriminator's logits (B,) of pictures beside texts."""
        return self.discriminator(pictures, text.sentence)[0]

    def verdict(self, scores: Tensor) -> Tensor:
        """Return the probabilities (B,) that logits stand for."""
        return scores.sigmoid()

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `real`, `fake` and, with CLS, `mismatched`: minimised over the discriminator."""
        sentence = batch.text.sentence
        real, _ = self.discriminator(batch.images, sentence)
        fake, _ = self.discriminator(fakes.last, sentence)
        mismatched = self.discriminator(batch.mismatched, sentence)[0] if self.needs.mismatched else None
        negative = 0.5 if self.config.halve_negatives else 1.0
        return losses.gan_discriminator(real, fake, mismatched, self.config.smoothing, negative)

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `adversarial`, `feature_matching`, `l1`, `interpolated` in use: minimised over G."""
        logits, features = self.discriminator(fakes.last, batch.text.sentence)
        terms = {"adversarial": losses.gan_generator(logits)}
        if self.config.feature_matching:
            with torch.no_grad():
                _, real = self.discriminator(batch.images, batch.text.sentence)
            terms["feature_matching"] = self.config.feature_matching * losses.feature_matching(features, real)
        if self.config.l1:
            terms["l1"] = self.config.l1 * losses.l1(fakes.last, batch.images)
        if self.config.interpolation and self.config.text:
            terms["interpolated"] = self.interpolated_loss(batch.text)
        return terms

    def interpolated_loss(self, text: Text) -> Tensor:
        """GAN-INT's term, equation 5: pictures for beta t1 + (1 - beta) t2, which no real one shows, shall fit it."""
        between = Text(torch.lerp(text.sentence.roll(1, 0), text.sentence, self.config.beta))
        fakes = self.fakes(between, self.noise(len(between), device=between.sentence.device))
        logits, _ = self.discriminator(fakes.last, between.sentence)
        return losses.gan_generator(logits)
