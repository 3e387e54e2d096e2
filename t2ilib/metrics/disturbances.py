"""Pictures made worse by a known amount: does a metric notice, and does it get worse when they do?

Heusel et al. 2017 (https://arxiv.org/abs/1706.08500), figure 3, asked their distance such questions: Gaussian noise,
Gaussian blur and a swirl are three of its disturbances. A strength of 0 leaves the pictures as they are.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.errors import InputError

REACH = 3  # standard deviations of a blur's kernel, to either side


def noisy(pictures: Tensor, deviation: float, seed: int = 0) -> Tensor:
    """Return pictures (N, 3, H, W) in [-1, 1] with normal noise, clipped; its `deviation` is a share of black to white.

    The noise depends on `seed` alone. Raises `InputError` for a deviation below 0, and for what are no pictures.
    """
    _check(pictures, "deviation", deviation)
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(seed)).to(pictures)
    return (pictures + 2 * deviation * noise).clamp(-1, 1)


def blurred(pictures: Tensor, radius: float) -> Tensor:
    """Return pictures (N, 3, H, W) after a Gaussian blur of standard deviation `radius`, in pixels; edges repeat.

    Raises `InputError` for a radius below 0, or one that reaches beyond the picture, and for what are no pictures.
    """
    _check(pictures, "radius", radius)
    reach = math.ceil(REACH * radius)
    if reach >= min(pictures.shape[2:]):
        raise InputError(f"radius = {radius}: its kernel is wider than the picture; give a smaller one")
    if not reach:
        return pictures.clone()
    places = torch.arange(-reach, reach + 1).to(pictures)
    weights = (-(places**2) / (2 * radius**2)).exp()
    kernel = (weights / weights.sum()).expand(3, 1, 1, -1)  # one for each channel
    wide = F.pad(pictures, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(wide, kernel, groups=3), kernel.mT, groups=3)


def swirled(pictures: Tensor, turn: float) -> Tensor:
    """Return pictures (N, 3, H, W) swirled: the middle turns by `turn` radians, a place at distance r by less.

    It is turn (1 - r)^2, r from 0 in the middle to 1 at the edge; corners stay. Bilinear between pixels. Raises
    `InputError` for a turn below 0, and for what are no pictures.
    """
    _check(pictures, "turn", turn)
    height, width = pictures.shape[2:]
    ys, xs = ((torch.arange(count).to(pictures) * 2 + 1) / count - 1 for count in (height, width))
    y, x = torch.meshgrid(ys, xs, indexing="ij")
    angle = turn * (1 - (x**2 + y**2).sqrt()).clamp(min=0) ** 2
    there = torch.stack([x * angle.cos() - y * angle.sin(), x * angle.sin() + y * angle.cos()], dim=-1)
    places = there.expand(len(pictures), -1, -1, -1)
    return F.grid_sample(pictures, places, mode="bilinear", padding_mode="border", align_corners=False)


def _check(pictures: Tensor, name: str, strength: float) -> None:
    """Raise InputError for what are no pictures (N, 3, H, W) of floats, and for a strength below 0."""
    if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.is_floating_point():
        kind = str(pictures.dtype).removeprefix("torch.")
        raise InputError(f"pictures: {kind} {tuple(pictures.shape)}; give floats (N, 3, H, W) in [-1, 1]")
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"{name} = {strength}: must be a finite number, at least 0")
