"""LPIPS between a generated picture and the real one of the same caption.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"
(https://arxiv.org/abs/1801.03924), equation 1, by torchmetrics, which ships the layers' weights (version 0.1); those of
the backbone, trained on ImageNet, are torchvision's. Backbones do not compare: the name belongs to the number.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from t2ilib.errors import InputError, one_line
from t2ilib.metrics.downloads import released_file
from t2ilib.metrics.means import MeanScore

BACKBONES = {"alex": "AlexNet_Weights", "vgg": "VGG16_Weights", "squeeze": "SqueezeNet1_1_Weights"}
LEAST = 32  # pixels of a side, below which the backbones' pooling leaves nothing


def load_lpips(backbone: str = "alex", device: torch.device | str = "cpu") -> Callable[[Tensor, Tensor], Tensor]:
    """Return the released network; InputError where its backbone's weights are neither there nor fetched."""
    if backbone not in BACKBONES:
        raise InputError(f"backbone = {one_line(repr(backbone))}: LPIPS has {', '.join(BACKBONES)}")
    import torchvision  # noqa: PLC0415, as torchmetrics seconds to import
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity  # noqa: PLC0415

    weights = getattr(torchvision.models, BACKBONES[backbone]).IMAGENET1K_V1
    released_file(weights.url, f"{weights.meta.get('architecture', backbone)} of LPIPS")
    return LearnedPerceptualImagePatchSimilarity(net_type=backbone).net.to(device)


class Lpips(MeanScore):
    """Mean perceptual distance; 0 is equal."""

    name, paired = "LPIPS", True

    def __init__(
        self,
        backbone: str = "alex",
        network: Callable[[Tensor, Tensor], Tensor] | None = None,
        device: torch.device | str = "cpu",
    ):
        """Compare through `network`, two batches in [-1, 1] to B distances; by default the released one."""
        self._network, self._device = network or load_lpips(backbone, device), device
        super().__init__({"extractor": f"lpips-{backbone}", "resize": "none"})

    def scores(self, pictures: Tensor, real: Tensor | None) -> Tensor:
        """Return the distance (B,) of each pair."""
        if min(pictures.shape[-2:]) < LEAST:
            told = f"{pictures.shape[-1]} x {pictures.shape[-2]} pixels"
            raise InputError(f"pictures: {told} are too small for LPIPS; give at least {LEAST} x {LEAST}")
        return self._network(pictures.to(self._device), real.to(self._device))
