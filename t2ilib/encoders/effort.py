"""What a small CLIP takes to look at one picture and to read one caption, found without doing either."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from t2ilib.errors import InputError

LARGEST = {"picture": 16 << 20, "caption": 4 << 20}  # bytes of one intermediate result; of ViT-L/14 4 and 1 MiB
ALL = 4 << 30  # bytes of all results together


@dataclass
class Effort(TorchDispatchMode):
    """While it is entered: the bytes of every result that torch computes, views left out."""

    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not function.is_view:
            tensors = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
            self.sizes += [value.numel() * value.element_size() for value in tensors]
        return result


def check_effort(model: nn.Module, image_size: int, context_length: int) -> None:
    """Raise InputError for a CLIP, on the device "meta", that takes too much of one picture or one caption.

    Weights say little about that: a small file can declare huge pictures, and captions of ten thousand words.
    """
    picture = torch.zeros(1, 3, image_size, image_size, device="meta")
    tokens = torch.zeros(1, context_length, dtype=torch.int64, device="meta")
    jobs = {"picture": lambda: model.encode_image(picture), "caption": lambda: model.encode_text(tokens)}
    for what, job in jobs.items():
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Effort() as effort:
            job()
        for found, most, how in ((max(effort.sizes), LARGEST[what], "at once"), (sum(effort.sizes), ALL, "in all")):
            if found > most:
                told = f"{found / 2**20:,.0f} MiB {how}, at most {most >> 20:,}"
                raise InputError(f"one {what} takes {told}; choose a smaller picture, context or network")
