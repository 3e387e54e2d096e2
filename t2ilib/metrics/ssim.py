"""SSIM between a generated picture and the real one of the same caption.

Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", equation 13, by
torchmetrics: a Gaussian window of 11 pixels (sigma 1.5), mean over channels and over all places, edges mirrored, of
values in [0, 1]. Two birds of one caption stand elsewhere on the picture, so it is near 0 for the best of systems: a
number of the literature, not a quality of text-to-image.
"""

import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.means import MeanScore

WINDOW = 11  # pixels of a side


class Ssim(MeanScore):
    """Mean structural similarity, -1 to 1; 1 is equal."""

    name, paired = "SSIM", True

    def __init__(self):
        """Begin with no pictures."""
        super().__init__({"window": WINDOW, "sigma": 1.5, "range": "0 to 1", "edges": "mirrored", "resize": "none"})

    def scores(self, pictures: Tensor, real: Tensor | None) -> Tensor:
        """Return the similarity (B,) of each pair."""
        from torchmetrics.functional.image import structural_similarity_index_measure  # noqa: PLC0415, seconds

        if min(pictures.shape[-2:]) < WINDOW:
            told = f"{pictures.shape[-1]} x {pictures.shape[-2]} pixels"
            raise InputError(f"pictures: {told} are smaller than SSIM's window of {WINDOW}; give larger ones")
        shown, wanted = ((images + 1) / 2 for images in (pictures, real))
        options = {"kernel_size": WINDOW, "sigma": 1.5, "data_range": 1.0, "reduction": "none"}
        return torch.atleast_1d(structural_similarity_index_measure(shown, wanted, **options))
