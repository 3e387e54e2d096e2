"""What every paper's system offers to training, sampling and evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from t2ilib.noise import truncated_noise


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Return Adam over `parameters`, as one fused kernel where their device has it."""
    parameters = list(parameters)
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return torch.optim.Adam(parameters, lr=lr, betas=betas, fused=fused)


class System(nn.Module, ABC):
    """One paper: its networks, losses and hyper-parameters.

    A subclass names its frozen dataclass `Config` (fields `noise_dim`, `lr`, `betas`, `batch_size` at least; the
    class method `Config.tiny()` gives sizes for tests), builds both networks, and defines the two losses. Training
    minimises the sum of a loss's terms, which are scalars, already weighted, and logged by their names.
    """

    Config: ClassVar[type]
    guidance: Callable[[Tensor, Any], Tensor] | None = None  # a further loss of fakes and batch, for the generator

    def __init__(self, config: Any, generator: nn.Module, discriminator: nn.Module):
        super().__init__()
        self.config = config
        self.generator = generator
        self.discriminator = discriminator

    @abstractmethod
    def discriminator_loss(self, batch: Any) -> dict[str, Tensor]:
        """Return the terms whose sum the discriminator minimises; the generator gets no gradient from them."""

    @abstractmethod
    def generator_loss(self, batch: Any) -> dict[str, Tensor]:
        """Return the terms whose sum the generator minimises."""

    def guided(self, fakes: Tensor, batch: Any) -> dict[str, Tensor]:
        """Return the term `clip` where `guidance` is set (t2ilib.text.guidance), else no term."""
        return {} if self.guidance is None else {"clip": self.guidance(fakes, batch)}

    def noise(
        self,
        count: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        truncation: float | None = None,
    ) -> Tensor:
        """Return standard-normal noise (count, Z); a `generator` of random numbers lives on the same `device`.

        With a `truncation` above 0, normal numbers beyond 2 are not drawn, and the rest is scaled by it: DF-GAN is
        evaluated at 0.88. Lower values give more typical and less various pictures.
        """
        return truncated_noise((count, self.config.noise_dim), truncation, generator, device)

    @torch.no_grad()
    def generate(self, sentence: Tensor, noise: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W) in [-1, 1] for sentence features (B, D) and noise (B, Z).

        The generator keeps its mode: `system.eval()` first, so that a picture does not depend on its batch.
        """
        return self.generator(noise, sentence)

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return one optimiser per network; call it once the system is on its device."""
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: adam(net.parameters(), self.config.lr, self.config.betas) for name, net in networks.items()}
