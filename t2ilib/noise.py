"""Noise for generators."""

import torch
from torch import Tensor, nn

from t2ilib.errors import InputError


def truncated_noise(
    shape: tuple[int, int],
    truncation: float | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return normal noise of `shape`; with a `truncation` > 0, within 2 standard deviations and times `truncation`."""
    if truncation is None:
        return torch.randn(shape, generator=generator, device=device)
    if not truncation > 0:
        raise InputError(f"truncation = {truncation}: must be above 0; 1 only leaves out what is beyond 2 sigma")
    noise = torch.empty(shape, device=device)
    return nn.init.trunc_normal_(noise, a=-2.0, b=2.0, generator=generator).mul_(truncation)
