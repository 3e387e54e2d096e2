"""TOPIQ-NR: how good a picture looks by itself, without a reference and without its caption.

Chen et al. 2023, "TOPIQ: A Top-down Approach from Semantics to Distortions for Image Quality Assessment"
(https://arxiv.org/abs/2308.03060), by its authors' package pyiqa, the extra `quality`, with the weights that were
trained on KonIQ-10k. It says nothing about birds: a sharp picture of anything scores well.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.metrics.downloads import released_file
from t2ilib.metrics.means import MeanScore

NAME = "topiq_nr"
ADDRESS = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/cfanet_nr_koniq_res50-9a73138b.pth"


def load_topiq(device: torch.device | str = "cpu") -> Callable[[Tensor], Tensor]:
    """Return the released network; InputError where pyiqa or the weights are neither there nor fetched."""
    try:
        import pyiqa  # noqa: PLC0415, an extra
    except ImportError as error:
        raise InputError(f"TOPIQ: {error}; install the extra: pip install 't2ilib[quality]' (pyiqa)") from None
    released_file(ADDRESS, "TOPIQ-NR", Path(torch.hub.get_dir()) / "pyiqa", checked=False)  # where pyiqa looks
    return pyiqa.create_metric(NAME, device=torch.device(device), backbone_pretrain=False)  # the weights are whole


class Topiq(MeanScore):
    """Mean quality, about 0 to 1; larger is better."""

    name = "TOPIQ-NR"

    def __init__(self, network: Callable[[Tensor], Tensor] | None = None, device: torch.device | str = "cpu"):
        """Look through `network`, pictures (B, 3, H, W) in [0, 1] to B scores; by default the released one."""
        self._network, self._device = network or load_topiq(device), device
        super().__init__({"extractor": NAME, "resize": "none"})

    def scores(self, pictures: Tensor, real: Tensor | None) -> Tensor:
        """Return the quality (B,) of each picture."""
        return self._network((pictures.to(self._device) + 1) / 2)
