"""Checkpoints: one safetensors file holds networks, averaged generator and optimisers of a step.

No pickle is written or read. A step seeds its own random numbers (see `loop.py`), so no generator state is stored.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from t2ilib.errors import InputError
from t2ilib.files import atomic


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `optimizer.<name>.<parameter index>.<entry>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{name}.{index}.{key}": value for index, row in state.items() for key, value in row.items()}


def restore_optimizer(name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load what `flatten_optimizer` returned; hyper-parameters stay those of the recipe.

    Every entry takes the memory layout of its parameter: fused optimisers walk both in storage order.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"optimizer.{name}."):
            index, entry = key.removeprefix(f"optimizer.{name}.").split(".", 1)
            state.setdefault(int(index), {})[entry] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter in parameters:
        row = optimizer.state[parameter]
        for entry, value in row.items():
            if value.shape == parameter.shape:
                row[entry] = torch.empty_like(parameter).copy_(value)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping) -> None:
    """Write tensors and the JSON-able `about` to `path`: whole or not at all."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(ready, temporary, metadata={"t2ilib": json.dumps(dict(about))})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return tensors (on the CPU) and `about` of a checkpoint; InputError names a damaged or foreign file."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["t2ilib"])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a whole checkpoint of ours ({error}); remove it or take another") from None


def load_module(module: nn.Module, prefix: str, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load the entries `prefix.*` into `module`; InputError names the file and the first entries that differ."""
    own = {key.removeprefix(f"{prefix}."): value for key, value in tensors.items() if key.startswith(f"{prefix}.")}
    expected = module.state_dict()
    wrong = sorted(set(own) ^ set(expected))
    wrong += [key for key in expected if key in own and own[key].shape != expected[key].shape]
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} entries of {prefix} do not fit this recipe's networks, first {wrong[0]}; "
            "resume with the recipe that wrote the checkpoint"
        )
    module.load_state_dict(own)
