"""WGAN and WGAN-GP on the networks of GAN-CLS: a critic that measures a distance instead of telling real from fake.

Papers: Arjovsky et al. 2017 (https://arxiv.org/abs/1701.07875), algorithm 1: the critic's scores have no sigmoid, its
weights are clipped, it takes several steps for each of the generator's. Gulrajani et al. 2017
(https://arxiv.org/abs/1704.00028), algorithm 1: a penalty on the critic's gradient instead of clipping. The text is
this course's (Reed et al. 2016): both networks read the sentence, and with CLS the critic also sees real pictures with
another caption.

The defaults are the stabilised reimplementation's: clipping, batch normalisation, Adam. Differences of that released
code from the papers, which are options here: Adam in place of RMSProp (`rmsprop`), both negatives of CLS counted in
full (`halve_negatives`, ours halves them), its gradient penalty, which lies commented out there, takes one norm per
pixel (`per_pixel`) and looks between real and fake pictures alone (`penalise_mismatched`), and it has no layer in which
picture and text meet (`joint`, see gancls.py).
Differences of ours from the released code: the critic returns a score per sample, not their mean; the fakes of the last
critic update serve the generator, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from t2ilib import losses
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Needs, Text
from t2ilib.models.gancls import DCGANSizes, Discriminator, Generator
from t2ilib.settings import POSITIVE, SHARE, STEPS, WEIGHT, Range
from t2ilib.task import System


@dataclass(frozen=True)
class WGANConfig(DCGANSizes):
    """Hyper-parameters; the defaults are the stabilised reimplementation's, but for `joint` and `halve_negatives`."""

    lr: Annotated[float, POSITIVE] = 2e-4  # both networks; WGAN's paper 5e-5, WGAN-GP's 1e-4
    betas: Annotated[tuple[float, float], SHARE] = (0.5, 0.999)  # Adam; WGAN-GP's paper (0, 0.9)
    rmsprop: bool = False  # RMSProp in place of Adam, as in WGAN's paper
    ema: Annotated[float, SHARE] = 0.0  # decay per step of the averaged generator; papers: none
    clip: Annotated[float, Range(above=0, most=1e12)] = 0.01  # the critic's weights stay within ±this
    penalty: Annotated[float, WEIGHT] = 0.0  # of the gradient penalty, 10 in its paper; replaces clipping
    per_pixel: bool = False  # the reimplementation's penalty: a norm per pixel, not per picture
    penalise_mismatched: bool = True  # with CLS, between matched and mismatched pictures, too; reimplementation: False
    critic_steps: Annotated[int, Range(least=1, most=10_000)] = 5  # critic updates for each of the generator's
    warm_critic_steps: Annotated[int, Range(least=1, most=10_000)] = 100  # in `warm_steps` and every `refresh_every`th
    warm_steps: Annotated[int, STEPS] = 25
    refresh_every: Annotated[int, STEPS] = 500  # 0: never
    mismatched: bool = True  # CLS: real pictures of another class with this caption are negatives
    halve_negatives: bool = True  # half of each kind of negative: the score's zero does not matter; released False

    def __post_init__(self) -> None:
        """Raise InputError for sizes and schedules that cannot be, and for a penalty with batch normalisation."""
        super().__post_init__()
        for name in ("batch_norm", "minibatch_discrimination"):
            if self.penalty and getattr(self, name):
                raise InputError(f"penalty: with {name} a sample's score depends on its batch; set {name}: false")


class WGAN(System):
    """WGAN, or with `penalty` WGAN-GP, conditional or vanilla: see `WGANConfig`. Its discriminator is the critic."""

    Config = WGANConfig

    def __init__(self, config: WGANConfig | None = None, encoders: Mapping[str, Any] | None = None):
        super().__init__(config or WGANConfig())
        self.generator = Generator(self.config)
        self.discriminator = Discriminator(self.config)
        self.needs = Needs(mismatched=self.config.mismatched and self.config.text)

    def rounds(self, step: int) -> list[tuple[str, ...]]:
        """Return several critic updates, each with a batch of its own; the last batch is the generator's, too."""
        config = self.config
        warm = step < config.warm_steps or (config.refresh_every and step % config.refresh_every == 0)
        updates = config.warm_critic_steps if warm else config.critic_steps
        return [("discriminator",)] * (updates - 1) + [("discriminator", "generator")]

    def fakes(self, text: Text, noise: Tensor) -> Fakes:
        """Return one picture per text, (B, 3, H, H)."""
        return Fakes([self.generator(noise, text.sentence)])

    def score(self, pictures: Tensor, text: Text) -> Tensor:
        """Return the critic's scores (B,) of pictures beside texts."""
        return self.discriminator(pictures, text.sentence)[0]

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `real`, `fake`, `mismatched` with CLS, and `penalty`: minimised over the critic."""
        sentence, config = batch.text.sentence, self.config
        real, _ = self.discriminator(batch.images, sentence)
        fake, _ = self.discriminator(fakes.last, sentence)
        mismatched = self.discriminator(batch.mismatched, sentence)[0] if self.needs.mismatched else None
        terms = losses.wasserstein_critic(real, fake, mismatched, config.halve_negatives)
        if config.penalty:
            negatives = self.negatives(batch, fakes)
            terms["penalty"] = losses.gradient_penalty(
                lambda images: self.discriminator(images, sentence)[0],
                batch.images,
                negatives,
                config.penalty,
                config.per_pixel,
            )
        return terms

    def negatives(self, batch: Batch, fakes: Fakes) -> Tensor:
        """Return the pictures (B, 3, H, H) to which the penalty's lines lead: fakes, with CLS half of them mismatched.

        Where no line leads, nothing bounds the slope: penalised towards fakes alone, a critic tells matched from
        mismatched pictures with ever larger scores.
        """
        if not (self.needs.mismatched and self.config.penalise_mismatched):
            return fakes.last
        chosen = torch.rand(len(fakes.last), 1, 1, 1, device=fakes.last.device) < 0.5
        return torch.where(chosen, batch.mismatched, fakes.last.float())

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the term `adversarial`: minimised over G."""
        scores, _ = self.discriminator(fakes.last, batch.text.sentence)
        return {"adversarial": losses.wasserstein_generator(scores)}

    @torch.no_grad()
    def after_update(self, role: str) -> None:
        """Clip the critic's weights (Arjovsky et al., algorithm 1, line 7), unless its gradient is penalised."""
        if role == "discriminator" and not self.config.penalty:
            for weight in self.discriminator.parameters():
                weight.clamp_(-self.config.clip, self.config.clip)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return Adam or RMSProp for both networks."""
        if not self.config.rmsprop:
            return super().optimizers()
        return {role: torch.optim.RMSprop(getattr(self, role).parameters(), self.config.lr) for role in self.trained}
