"""The Inception network of 2015, whose features the literature's FID, KID and Inception Score are computed of.

Weights: Google's of 5 December 2015, converted to PyTorch by torch-fidelity, whose network this is. How pictures get
its 299 pixels matters as much as the weights: the same pictures differ by several points of FID.

- "legacy": the network's own, bilinear without antialiasing as TensorFlow 1 did it: most published numbers.
- "clean": bicubic, antialiased, in floating point: clean-fid's (Parmar, Zhang and Zhu 2022, "On Aliased Resizing and
  Surprising Subtleties in GAN Evaluation", https://arxiv.org/abs/2104.11222). Here torch resizes where clean-fid takes
  Pillow; they agree to a hundredth of one of 255 levels (tested).
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from t2ilib.devices import CPU_BATCH, GPU_BATCH
from t2ilib.errors import InputError, one_line
from t2ilib.metrics.downloads import released_file
from t2ilib.metrics.extractors import Seen
from t2ilib.metrics.intake import to_bytes
from t2ilib.pictures import resized
from t2ilib.weights import digest

SIDE = 299  # pixels that the network sees
NAME = "inception-2015-12-05"


def legacy(levels: Tensor) -> Tensor:
    """Resize levels (B, 3, H, W) in 0..255 as TensorFlow 1 did: bilinear, not antialiased, half a pixel off."""
    return interpolate_bilinear_2d_like_tensorflow1x(levels, size=(SIDE, SIDE), align_corners=False)


def clean(levels: Tensor) -> Tensor:
    """Resize levels (B, 3, H, W) in 0..255 as clean-fid does: bicubic, antialiased, clipped to 0..255, not rounded."""
    return resized(levels, SIDE).clamp(0, 255)


RESIZES: Mapping[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "legacy": (legacy, f"{SIDE} px, bilinear as TensorFlow 1, not antialiased (legacy)"),
    "clean": (clean, f"{SIDE} px, bicubic, antialiased, not rounded (clean)"),
}


def load_inception() -> FeatureExtractorInceptionV3:
    """Return the network with the released weights, on the CPU; InputError where they are neither there nor fetched."""
    path = released_file(URL_INCEPTION_V3, "Inception of 2015, for FID, KID and Inception Score")
    return FeatureExtractorInceptionV3(NAME, ["2048"], feature_extractor_weights_path=str(path))


class Inception:
    """Features (B, 2048) of the last pooling, and the probabilities (B, 1008) of the classes.

    The probabilities leave out the last layer's bias, as the Inception Score's authors did.
    """

    size = 2048

    def __init__(
        self,
        resize: str = "legacy",
        network: FeatureExtractorInceptionV3 | None = None,
        device: torch.device | str = "cpu",
    ):
        """Look through `network`, by default the released one, after a resize of `RESIZES`."""
        if resize not in RESIZES:
            raise InputError(f"resize = {one_line(repr(resize))}: Inception has {', '.join(RESIZES)}")
        self._resized, self.resize = RESIZES[resize]
        self.name = NAME if network is None else f"{NAME}-{digest(network.state_dict())[:12]}"
        network = (network or load_inception()).to(device)
        self._device, self._classes = torch.device(device), network.fc.weight  # (1008, 2048)
        layers = [layer for name, layer in network.named_children() if name != "fc"]  # in the order of the network
        self._trunk = nn.Sequential(*layers, nn.Flatten()).eval()

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Seen:
        """Return what the network sees in pictures (B, 3, H, W) in [-1, 1], rounded to 8 bits first."""
        parts = pictures.split(CPU_BATCH if self._device.type == "cpu" else GPU_BATCH)
        features = torch.cat([self._features(part.to(self._device)) for part in parts])
        return Seen(features.cpu(), (features @ self._classes.T).softmax(dim=1).cpu())

    def _features(self, pictures: Tensor) -> Tensor:
        levels = self._resized(to_bytes(pictures))
        return self._trunk((levels - 128) / 128)
