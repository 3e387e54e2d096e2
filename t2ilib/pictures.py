"""Pictures as bytes and as numbers: the one place where 0..255 and [-1, 1] meet, and where pictures are resized."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.errors import InputError


def to_float(images: np.ndarray | Tensor) -> Tensor:
    """Return uint8 pictures (N, H, W, 3) as float32 (N, 3, H, W) in [-1, 1], channels last, on their device."""
    if not isinstance(images, Tensor):
        images = torch.from_numpy(np.array(images))  # a copy: memory-mapped pictures are read-only
    return images.permute(0, 3, 1, 2).to(torch.float32).div_(127.5).sub_(1)


def to_uint8(images: np.ndarray | Tensor) -> np.ndarray:
    """Return pictures (N, H, W, 3) uint8 from such an array, or from a tensor or array (N, 3, H, W) in [-1, 1]."""
    images = np.asarray(images.detach().float().cpu() if isinstance(images, Tensor) else images)
    if images.ndim == 4 and images.dtype == np.uint8 and images.shape[-1] == 3:
        return images
    if images.ndim != 4 or images.dtype == np.uint8 or images.shape[1] != 3:
        raise InputError(
            f"images: {images.dtype} {images.shape}; give uint8 (N, H, W, 3) or numbers in [-1, 1] (N, 3, H, W)"
        )
    if not np.isfinite(images).all():
        raise InputError("images: some are NaN or infinite; look for what made them, as a damaged or diverged network")
    return np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def resized(images: Tensor, size: int, mode: str = "bicubic") -> Tensor:
    """Return pictures (B, 3, H, W) as (B, 3, size, size), antialiased and differentiable, in float32 at least.

    Bicubic overshoots a little at sharp edges; nothing is clamped, so that no gradient is cut. CPUs have no kernel for
    bfloat16. Pictures that have the size are returned as they are.
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False)
