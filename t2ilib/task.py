"""What the training loop knows: tasks. A system, one paper's text-to-image GAN, is the task that paints from text."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from t2ilib import settings
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Needs, Text


class Painter(Protocol):
    """Anything that paints: a system, or a `Sampler`. Grids, metrics, figures and the explorer take this."""

    def noise(
        self,
        count: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Return noise (count, Z)."""

    def generate(self, text: Text, noise: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [-1, 1], without a graph; text and noise lie on one device."""


class Task(nn.Module, ABC):
    """Networks, losses and hyper-parameters of one thing that is trained.

    A subclass names its frozen dataclass `Config` and the attributes that are trained: each of these *roles* has an
    optimiser and an entry in checkpoints. Training goes through `rounds`; in each round `prepare` is called once, then
    every role minimises the sum of the terms of its `loss`.
    """

    Config: ClassVar[type]
    trained: ClassVar[tuple[str, ...]]
    averaged: ClassVar[str | None] = None  # the attribute of which a moving average is kept, where `decay` says so
    encoders: ClassVar[tuple[str, ...]] = ()  # roles of the frozen encoders that it needs: "text", "clip", "damsm"
    needs: Needs = Needs()  # what it reads of a batch

    def __init__(self, config: Any):
        super().__init__()
        self.config = config

    @classmethod
    def build(cls, values: Mapping[str, Any], encoders: Mapping[str, Any], dataset: Any = None) -> "Task":
        """Return the task with the hyper-parameters `values`, for `dataset` (CaptionedImages) and `encoders` by role.

        Raises InputError for an unknown hyper-parameter, and for a value of the wrong type or range.
        """
        return cls(cls.configure(values))

    @classmethod
    def outline(cls, values: Mapping[str, Any], encoders: Mapping[str, Any]) -> nn.Module:
        """Return the networks on the device "meta", which takes no memory and draws no random number.

        Only as far as the hyper-parameters, and the encoders that are there, decide their sizes; by default nothing.
        """
        return nn.Module()

    @classmethod
    def configure(cls, values: Mapping[str, Any]) -> Any:
        """Return the config with these hyper-parameters; InputError names an unknown one and one out of its range."""
        return settings.read(cls.Config, values, "model")

    @classmethod
    def check_steps(cls, config: Any, steps: int) -> None:
        """Raise InputError where a run of `steps` steps makes no sense with these hyper-parameters; most take any."""

    @property
    def decay(self) -> float:
        """Decay per step of the moving average; 0: none is kept."""
        return getattr(self.config, "ema", 0.0) if self.averaged else 0.0

    def measure(self, dataset: Any) -> dict[str, float]:
        """Return numbers of a task that is no system on pictures (CaptionedImages) it was not trained on."""
        return {}

    def save(self, folder: str | Path) -> None:
        """Write what a task that is no system was trained for, where others read it in a form of its own."""

    def rounds(self, step: int) -> list[tuple[str, ...]]:
        """Return the roles that each batch of `step` updates, in order; one batch and all roles unless overridden."""
        return [self.trained]

    def prepare(self, batch: Batch, roles: tuple[str, ...]) -> Any:
        """Return what the losses of a round share; a system paints its fakes here."""
        return None

    @abstractmethod
    def loss(self, role: str, batch: Batch, prepared: Any) -> dict[str, Tensor]:
        """Return the terms (scalars, already weighted) whose sum `role` minimises; the other roles are frozen."""

    def watch(self, batch: Batch, prepared: Any) -> dict[str, Tensor]:
        """Return scalars that a record shows and nobody minimises, of a step's last batch, after its updates."""
        return {}

    def after_update(self, role: str) -> None:
        """Act on the weights after an update of `role`: clipping, bounds."""

    def rate(self, role: str, step: int, steps: int) -> float:
        """Return the share of the learning rate of `role` at `step` (from 0) of `steps`; 1 unless overridden."""
        return 1.0

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return an optimiser per role: Adam with the config's `lr` and `betas`, or with `ROLE_lr` where there is one.

        Call it once the task is on its device.
        """
        rates = {role: getattr(self.config, f"{role}_lr", self.config.lr) for role in self.trained}
        return {role: adam(getattr(self, role).parameters(), rates[role], self.config.betas) for role in self.trained}


class System(Task):
    """One paper: the task whose generator paints what a text says.

    `Config` has at least noise_dim, lr, betas, batch_size, image_size and ema, and a class method `tiny()` with sizes
    for tests. A subclass builds the networks and defines `fakes` and the two losses.
    """

    trained = ("discriminator", "generator")
    averaged = "generator"
    encoders = ("text",)
    guidance: Callable[[Tensor, Batch], Tensor] | None = None  # a further loss of the generator: the CLIP loss

    @classmethod
    def build(cls, values: Mapping[str, Any], encoders: Mapping[str, Any], dataset: Any = None) -> "System":
        """Return the system; sizes that the encoders decide may be left out, and must agree with them where given."""
        sizes = cls.sizes(encoders)
        for name, size in sizes.items():
            if values.get(name, size) != size:
                raise InputError(f"model: {name} = {values[name]!r}, but the encoders of this run say {size}; drop it")
        return cls(cls.configure({**sizes, **values}), encoders)

    @classmethod
    def outline(cls, values: Mapping[str, Any], encoders: Mapping[str, Any]) -> nn.Module:
        """Return the system on the device "meta"; sizes that absent encoders would decide are the paper's."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            return cls.build(values, encoders)

    @classmethod
    def sizes(cls, encoders: Mapping[str, Any]) -> dict[str, int]:
        """Return the sizes that the encoders decide."""
        return {"embedding_dim": encoders["text"].sentence_dim} if "text" in encoders else {}

    @property
    def noise_dim(self) -> int:
        """Length Z of all the noise that a picture needs, the condition's included."""
        return self.config.noise_dim

    def noise(
        self,
        count: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Return standard-normal noise (count, Z) on `device`, or where `generator`, of random numbers, lives.

        With a `truncation` above 0, normal numbers beyond 2 are not drawn, and the rest is scaled by it: DF-GAN is
        evaluated at 0.88. Lower values give more typical and less various pictures.
        """
        return normal_noise((count, self.noise_dim), generator, device, truncation)

    @abstractmethod
    def fakes(self, text: Text, noise: Tensor) -> Fakes:
        """Return the generator's pictures of B texts and noise (B, Z): the paper's figure as code."""

    @abstractmethod
    def score(self, pictures: Tensor, text: Text) -> Tensor:
        """Return what the discriminator says (B,) of the finest pictures (B, 3, H, W) beside texts."""

    @abstractmethod
    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms whose sum the discriminator minimises; `fakes` are detached."""

    @abstractmethod
    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms whose sum the generator minimises."""

    def prepare(self, batch: Batch, roles: tuple[str, ...]) -> Fakes:
        """Paint the round's fakes once, for all its roles; with a graph only where the generator learns from them."""
        noise = self.noise(len(batch.images), device=batch.images.device)
        with torch.set_grad_enabled("generator" in roles):
            return self.fakes(batch.text, noise)

    def loss(self, role: str, batch: Batch, prepared: Fakes) -> dict[str, Tensor]:
        """Return the generator's terms, the CLIP loss among them where `guidance` is set, or the discriminator's."""
        if role != "generator":
            return self.discriminator_loss(batch, prepared.detach())
        terms = self.generator_loss(batch, prepared)
        return terms if self.guidance is None else terms | {"clip": self.guidance(prepared.last, batch)}

    def verdict(self, scores: Tensor) -> Tensor:
        """Return D (B,) as the paper plots it, from what `score` gives: the score itself unless overridden."""
        return scores

    def watch(self, batch: Batch, prepared: Fakes) -> dict[str, Tensor]:
        """Return the mean of D for real pictures, fakes, and real pictures beside the caption of another picture."""
        other = batch.images.roll(-1, 0) if batch.mismatched is None else batch.mismatched
        shown = {"real": batch.images, "fake": prepared.last, "mismatched": other}
        return {f"D_{kind}": self.verdict(self.score(each, batch.text).float()).mean() for kind, each in shown.items()}

    @torch.no_grad()
    def generate(self, text: Text, noise: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [-1, 1] for the features of B captions and noise (B, Z).

        The generator keeps its mode: `system.eval()` first, so that a picture does not depend on its batch.
        """
        return self.fakes(text, noise).last


class Frozen:
    """A pretrained network inside a task, which does not own it.

    It is in none of the task's parameters, state dict, average or optimisers; copies of the task share it. It stays in
    evaluation mode and follows its first tensor to that one's device. No weight takes a gradient, but gradients pass
    through to the inputs.
    """

    def __init__(self, module: nn.Module):
        self.module = module.eval().requires_grad_(False)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """Return the network's output."""
        return self._at(inputs, options)(*inputs, **options)

    def call(self, method: str, *inputs: Any, **options: Any) -> Any:
        """Return what another method of the network gives, as `frozen.call("encode_images", pictures)`."""
        return getattr(self._at(inputs, options), method)(*inputs, **options)

    def __deepcopy__(self, memo: dict) -> "Frozen":
        """Share the network instead of copying it."""
        return self

    def _at(self, inputs: tuple, options: dict) -> nn.Module:
        first = next((value for value in (*inputs, *options.values()) if isinstance(value, Tensor)), None)
        own = next(self.module.parameters(), None)
        if first is not None and own is not None and own.device != first.device:
            self.module.to(first.device)
        return self.module


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0): a linear rise, then a cosine to zero at `steps`.

    The rise takes `warmup` steps, at most half of all.
    """
    warmup = min(warmup, steps // 2)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Return Adam over `parameters`, as one fused kernel where their device has it."""
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=fused)


def normal_noise(
    shape: tuple[int, int],
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    truncation: float | None = None,
) -> Tensor:
    """Return normal noise; with a `truncation` > 0, within 2 standard deviations and times `truncation`.

    It is drawn where `generator` lives, else on `device`, and returned on `device` (default: where it was drawn).
    """
    drawn_on = device if generator is None else generator.device
    if truncation is None:
        noise = torch.randn(shape, generator=generator, device=drawn_on)
    elif truncation > 0:
        noise = nn.init.trunc_normal_(torch.empty(shape, device=drawn_on), a=-2.0, b=2.0, generator=generator)
        noise.mul_(truncation)
    else:
        raise InputError(f"truncation = {truncation}: must be above 0; 1 only leaves out what is beyond 2 sigma")
    return noise.to(device or noise.device)
