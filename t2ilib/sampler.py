"""A trained generator and the encoder that it reads with: captions in, pictures out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from t2ilib.devices import CPU_BATCH, GPU_BATCH, device_named, keep_freed_memory, this_process
from t2ilib.encoders import TextEncoder
from t2ilib.encoders.vocabulary import remarks
from t2ilib.errors import InputError, one_line, warn
from t2ilib.features import Text
from t2ilib.settings import TRUNCATION, Range
from t2ilib.task import System
from t2ilib.training.recipe import Recipe

NOISE_SEEDS = 2**64  # that torch tells apart
PER_CAPTION = Range(least=1, most=10_000)


@dataclass
class Sampler:
    """A trained generator with the encoder that it is conditioned on, both on one device.

    `step` is the number of generator steps that it was trained for, `folder` that of the encoders trained for it, where
    it has one: the run's, or the one beside an exported file. Weights that authors released have neither recipe nor
    step.
    """

    system: System
    encoder: TextEncoder
    recipe: Recipe | None
    step: int | None
    folder: Path | None = None

    @property
    def device(self) -> torch.device:
        """Where it paints."""
        return self.encoder.device

    @property
    def side(self) -> int:
        """Height and width of its pictures, in pixels."""
        return self.recipe.data.side if self.recipe else self.system.config.image_size

    def noise(
        self,
        count: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Return noise (count, Z), as `System.noise`."""
        return self.system.noise(count, generator, device, truncation)

    def generate(self, text: Text, noise: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [-1, 1] of encoded captions, all at once, as `System.generate`."""
        return self.system.generate(text, noise)

    def stream(
        self, captions: Iterable[str], seed: int = 0, per_caption: int = 1, truncation: float | None = None
    ) -> Iterator[Tensor]:
        """Yield the pictures of `sample` in batches (B, 3, H, W) on the CPU, for any number of captions.

        Memory is taken for one batch and `per_caption` rows of noise.
        """
        check_drawing(seed, per_caption, truncation)
        noise = self.noise(per_caption, torch.Generator().manual_seed(seed), truncation=truncation)
        yield from self._painted((caption, row) for caption in captions for row in noise)

    def draw(self, captions: Sequence[str], noise: Tensor) -> Iterator[Tensor]:
        """Yield one picture per caption for noise (N, Z), in batches (B, 3, H, W) on the CPU."""
        yield from self._painted(zip(captions, noise, strict=True))

    def _painted(self, asked: Iterator[tuple[str, Tensor]]) -> Iterator[Tensor]:
        """Yield a picture for each caption and row of noise (Z,), batch by batch."""
        size = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        while part := list(islice(asked, size)):
            captions, rows = zip(*part, strict=True)
            yield self.generate(self.encoder.encode(list(captions)), torch.stack(rows).to(self.device)).cpu()

    def sample(
        self, captions: Sequence[str], seed: int = 0, per_caption: int = 1, truncation: float | None = None
    ) -> Tensor:
        """Return `per_caption` pictures of each caption, (len(captions) * per_caption, 3, H, W), caption by caption.

        Picture k of every caption shares its noise, so that only the words differ; a seed gives the same noise
        whatever the captions are. `truncation` as in `System.noise`. Warns, once per kind, of captions that the encoder
        cannot read; InputError for what cannot be drawn.
        """
        if isinstance(captions, str) or not len(captions):
            raise InputError(f"captions = {one_line(repr(captions))}: give a list with at least one caption")
        for line in remarks(self.encoder, captions):
            warn(line)
        return torch.cat(list(self.stream(captions, seed, per_caption, truncation)))


def placed(sampler: Sampler, device: torch.device | str | None = None) -> Sampler:
    """Return a sampler in evaluation mode on `device`, by default the accelerator where there is one."""
    device = this_process().device if device is None else device_named(device)
    keep_freed_memory()
    system = sampler.system.to(device).eval().requires_grad_(False)
    return replace(sampler, system=system, encoder=sampler.encoder.to(device))


def check_drawing(seed: int, per_caption: int, truncation: float | None) -> None:
    """Raise InputError for a seed, a number of pictures or a truncation that nothing can be drawn with."""
    if not 0 <= seed < NOISE_SEEDS:
        raise InputError(f"seed = {seed}: must be at least 0 and below 2^64")
    if not PER_CAPTION.holds(per_caption):
        raise InputError(f"per_caption = {per_caption}: must be {PER_CAPTION}; for more take further seeds")
    if truncation is not None and not TRUNCATION.holds(truncation):
        raise InputError(f"truncation = {truncation}: must be {TRUNCATION}; 1 only leaves out what is beyond 2 sigma")
