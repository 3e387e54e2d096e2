"""Exponential moving average of a generator's weights, from which samples are drawn."""

import copy

import torch
from torch import nn


class EMA:
    """Averaged copy of `module`: average <- decay * average + (1 - decay) * module, after every step.

    The decay grows as (1 + step) / (10 + step) up to `decay`, so that short runs are not dominated by the random
    initial weights. Floating-point buffers (BatchNorm statistics) are averaged too, counters copied.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards `module`'s weights after step number `step` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, currents = [], []
        for average, current in zip(self.module.state_dict().values(), module.state_dict().values(), strict=True):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current)
            else:
                average.copy_(current)
        torch._foreach_lerp_(averages, currents, 1 - decay)
