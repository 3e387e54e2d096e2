"""Pixels that climb: what a CLIP asks for when no generator stands between its gradient and the picture."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from t2ilib.encoders.encoder import PictureEncoder
from t2ilib.encoders.guidance import ClipGuidance
from t2ilib.errors import InputError

RATE = 0.02  # of Adam, in brightness from -1 to 1: the most that a pixel moves in a step, about


def climb(
    pictures: Tensor,
    captions: Sequence[str],
    teachers: Sequence[PictureEncoder],
    steps: int,
    *,
    crops: int = 0,
    look: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Change the pixels of pictures (N, 3, H, W) in [-1, 1] until all `teachers` find that they fit their captions.

    Adam minimises the sum of the CLIP losses, each with so many `crops`; `look` is shown the pictures of every step.
    InputError without teachers, and for pictures that are not finite.
    """
    if not teachers:
        raise InputError("teachers: none given; give at least one CLIP")
    if not pictures.isfinite().all():
        raise InputError("pictures: some pixels are not finite; give pictures in [-1, 1]")
    targets = [(ClipGuidance(one, weight=1.0, crops=crops), one.encode(captions).sentence) for one in teachers]
    pixels = pictures.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=RATE)
    for step in range(steps):
        loss = sum(guidance(pixels, SimpleNamespace(target=target, step=step)) for guidance, target in targets)
        (pixels.grad,) = torch.autograd.grad(loss, pixels)
        optimizer.step()
        with torch.no_grad():
            pixels.clamp_(-1, 1)  # a picture has no brighter white
            if look:
                look(pixels)
    return pixels.detach()
