"""The CLIP loss: a frozen CLIP that tells the generator how to come nearer to its caption.

L = lambda * (1 - cos(CLIP(fake), CLIP(text))), added to the generator's loss by CLIP-enhanced DF-GAN (lambda 0.01;
https://github.com/Omar-Orensa/CLIP-Enhanced-DF-GAN) and, inside the paper, by GALIP. The equation is
`t2ilib.losses.clip_loss`; here are the pixels' way to it, and the schedule.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from t2ilib import losses
from t2ilib.encoders.encoder import PictureEncoder, sees
from t2ilib.errors import InputError
from t2ilib.features import Batch
from t2ilib.pictures import resized
from t2ilib.settings import STEPS, Range, check_ranges

SMALLEST_CROP = 0.7  # of the side; smaller ones lose the parts that a caption names


@dataclass(frozen=True)
class ClipGuidance:
    """A CLIP loss with its weight; call it with fakes and their batch."""

    encoder: PictureEncoder  # frozen, on the device of the pictures
    weight: Annotated[float, Range(least=0, most=1e4)] = 0.01  # lambda
    start: Annotated[int, STEPS] = 0  # generator steps without it
    ramp: Annotated[int, STEPS] = 0  # generator steps over which the weight then rises to `weight`
    crops: Annotated[int, Range(least=0, most=64)] = (
        0  # random crops scored beside the whole picture: harder to fool than one fixed view
    )
    released: bool = False  # the term as the released code computes it: a constant, without gradient

    def __post_init__(self) -> None:
        """Raise InputError for an encoder that cannot see, and for impossible numbers."""
        if not sees(self.encoder):
            raise InputError(f"clip.encoder: {self.encoder.name} reads text only; choose a CLIP")
        check_ranges(self, "clip.")

    def __deepcopy__(self, memo: dict) -> "ClipGuidance":
        """Share the encoder: copies of a system do not own it."""
        return self

    def __call__(self, fakes: Tensor, batch: Batch) -> Tensor:
        """Return the weighted loss (scalar) of pictures (B, 3, H, W) in [-1, 1].

        `batch.target` (B, D) are the captions' features by the same encoder; `batch.step` counts generator steps.
        """
        weight = self.weight * self.share(batch.step)
        if self.released:
            return weight * released_clip_loss(self.encoder, fakes, batch.target)
        views = [fakes, *(random_crop(fakes) for _ in range(self.crops))]
        scores = [losses.clip_loss(self.encoder.encode_images(view), batch.target) for view in views]
        return weight * torch.stack(scores).mean()

    def share(self, step: int) -> float:
        """Return the share of the full weight at `step`: 0 before `start`, then rising linearly over `ramp` steps."""
        return min(1.0, max(0.0, (step + 1 - self.start) / max(1, self.ramp)))


@torch.compiler.disable  # sizes that change with every call would be compiled anew each time
def random_crop(images: Tensor, smallest: float = SMALLEST_CROP) -> Tensor:
    """Cut one square out of all pictures (B, 3, H, W), its side between `smallest` and 1 of theirs; differentiable."""
    full = images.shape[-1]
    side = int(full * (smallest + (1 - smallest) * torch.rand(()).item()))
    top, left = torch.randint(0, full - side + 1, (2,)).tolist()
    return images[..., top : top + side, left : left + side]


@torch.no_grad()
def released_clip_loss(encoder: PictureEncoder, images: Tensor, texts: Tensor) -> Tensor:
    """Return mean (1 - cos) the way the released CLIP-enhanced DF-GAN does: without any gradient, of wrapped pixels.

    Its pictures leave the graph, go to the CPU and become 8-bit ones by x * 255, as if they lay in [0, 1]: the dark
    half, [-1, 0), wraps around, so that black turns nearly black again by way of all colours. The network then sees
    these. What is added to the loss is a number that the generator's weights cannot change.
    """
    wrapped = (images.detach().float().cpu() * 255).to(torch.int64).remainder(256).float() / 255  # [0, 1]
    pixels = resized(wrapped, encoder.image_size, mode="bilinear")  # torchvision's Resize of PIL pictures, as there
    embedded = encoder.encode_images(pixels.to(encoder.device) * 2 - 1)
    return losses.clip_loss(embedded, texts)
