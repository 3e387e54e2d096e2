"""What comparisons with golden files share: their weights and inputs as tensors, and how far a result is away."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fill
import numpy as np
import pytest
import torch

from t2ilib.features import Batch, Text

GOLDEN = Path(__file__).parent
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


def weights(name: str) -> dict[str, torch.Tensor]:
    """Return the state dict behind golden/`name`.safetensors, under released names."""
    shapes = json.loads((GOLDEN / f"{name}.json").read_text())["state_dict"]
    return {key: torch.from_numpy(np.asarray(fill.weight(key, tuple(shape)))) for key, shape in shapes.items()}


def given(name: str, *shape: int) -> torch.Tensor:
    """Return the input `name`."""
    return torch.from_numpy(fill.array(name, shape))


def batch(images: torch.Tensor, sentence: torch.Tensor, mismatched: torch.Tensor | None = None) -> Batch:
    """Return the batch of these pictures, sentence features and pictures of other classes."""
    rows = torch.arange(len(images), device=images.device)
    return Batch(images, rows[None], rows, rows, Text(sentence), mismatched=mismatched)


def networks(entries: dict[str, torch.Tensor], *names: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return {network: {released name: tensor}} of a flat mapping."""
    return {n: {k.removeprefix(f"{n}."): v for k, v in entries.items() if k.startswith(f"{n}.")} for n in names}


def published(name: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return the published full-size entries of golden/`name`_official_keys.json, without memory behind them."""
    shapes = json.loads((GOLDEN / f"{name}_official_keys.json").read_text())
    return {net: {k: torch.empty(s, device="meta") for k, s in part.items()} for net, part in shapes.items()}


def relative(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Return |actual - expected| / |expected| for two tensors of one shape."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)}, not {tuple(expected.shape)}"
    return ((actual.detach().cpu() - expected).norm() / expected.norm()).item()


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch TensorFloat-32 off: it rounds to three decimal digits."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    try:
        yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed
