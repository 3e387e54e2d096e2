"""The loss scale of training in float16, one for each role, as in GALIP's released code.

Float16 ends at 65,504 and knows nothing between 0 and 6e-8: a gradient leaves it at either end. The loss is therefore
multiplied by a scale S before the backward pass, and the gradients, in float32 by then, are divided by it. One that was
too large on the way is infinite: the update is left out, and S halved. This is the scale's way to find its height, no
fault of the run, and `training.non_finite` has no say in it; a loss term that is itself not finite still stops the run,
and so does a role none of whose updates fits.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from t2ilib.errors import InputError, one_line

# GALIP's `scaler_min`, and what it then starts from anew. A scale that falls this low is mostly the victim of a few bad
# batches, and small gradients are lost at it. Where it is the network that needs less than 64, no update happens again:
# so many in a row are more than ten times the way from 16,384 down.
LEAST, ANEW, STANDSTILL = 64.0, 16_384.0, 100


class LossScaler(torch.amp.GradScaler):
    """PyTorch's scaler (2^16 at first, halved at an overflow, doubled after 2,000 updates without) for one role.

    Once below 64, the scale is set to 16,384. With `enabled=False` it is 1 and nothing is ever an overflow.
    """

    def __init__(self, *options: Any, role: str = "network", **named: Any):
        """Take the options of PyTorch's scaler, and what messages call the one whose gradients are scaled."""
        super().__init__(*options, **named)
        self.role, self.left_out = role, 0  # updates in a row

    def unscaled(self, optimizer: torch.optim.Optimizer) -> bool:
        """Divide the gradients by the scale they were made with; return whether all are finite, and adjust the scale.

        Gradients are those of all processes already, so that every process decides alike. In float16 alone, two
        numbers are read back from the device. InputError at the hundredth overflow in a row.
        """
        before = self.get_scale()
        self.unscale_(optimizer)
        self.update()
        after = self.get_scale()
        if self.is_enabled() and after < LEAST:
            self.update(ANEW)
        self.left_out = self.left_out + 1 if after < before else 0
        if self.left_out == STANDSTILL:
            raise InputError(
                f"training.precision: fp16 is too narrow for the gradients of the {self.role}: {STANDSTILL} updates in "
                f"a row were left out, at all loss scales from {ANEW:,.0f} down to {LEAST:.0f}; set bf16 or fp32"
            )
        return after >= before


def scales(scalers: Mapping[str, LossScaler]) -> dict[str, dict]:
    """Return what a checkpoint keeps of each role's scaler: its scale, and how many updates ago that changed."""
    states = {role: scaler.state_dict() for role, scaler in scalers.items() if scaler.is_enabled()}
    return {role: {"scale": state["scale"], "since": state["_growth_tracker"]} for role, state in states.items()}


def restore_scales(scalers: Mapping[str, LossScaler], told: Any, path: Path) -> None:
    """Load what `scales` returned; None, from a checkpoint without it, leaves the scalers as they are.

    Raises InputError, naming `path`, for anything that `scales` does not return.
    """
    enabled = {role: scaler for role, scaler in scalers.items() if scaler.is_enabled()}
    if told is None or not enabled:
        return
    if not isinstance(told, dict) or told.keys() != enabled.keys() or not all(map(_possible, told.values())):
        raise InputError(
            f"{path}: not a whole checkpoint of ours (its scales are {one_line(repr(told))}); take another"
        )
    for role, scaler in enabled.items():
        row = {"scale": told[role]["scale"], "_growth_tracker": told[role]["since"]}
        scaler.load_state_dict(scaler.state_dict() | row)


def overflowing(network: nn.Module, loss: Tensor, scale: float) -> list[str]:
    """Return the names of the weights of `network` whose gradients of scale * loss are not finite.

    The loss keeps its graph, so that one can be asked about several scales; no `.grad` is touched.
    """
    names, weights = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(scale * loss, weights, allow_unused=True, retain_graph=True)
    found = zip(names, gradients, strict=True)
    return [name for name, gradient in found if gradient is not None and not gradient.isfinite().all()]


def _possible(row: Any) -> bool:
    """Whether a checkpoint can say this of a scaler."""
    if not isinstance(row, dict) or row.keys() != {"scale", "since"}:
        return False
    scale, since = row["scale"], row["since"]
    return type(scale) is float and LEAST <= scale < math.inf and type(since) is int and 0 <= since < 1 << 31
