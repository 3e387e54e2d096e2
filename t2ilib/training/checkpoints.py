"""Checkpoints: one safetensors file holds networks, averaged generator and optimisers of a step.

No pickle is written or read. A step seeds its own random numbers (see `loop.py`), so no generator state is stored.
"""

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from t2ilib.errors import InputError, one_line
from t2ilib.training.stopping import undivided
from t2ilib.weights import digest, save_tensors

MOST = 1e15  # of steps, batches, seconds
NEVER_NEGATIVE = ("step", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")  # an optimiser takes roots of them


def flatten_optimizer(name: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `optimizer.<name>.<parameter index>.<entry>`."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{name}.{index}.{key}": value for index, row in state.items() for key, value in row.items()}


def restore_optimizer(
    name: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: str | Path = "checkpoint"
) -> None:
    """Load what `flatten_optimizer` returned; hyper-parameters stay those of the recipe.

    Every entry is checked first, since fused optimisers walk parameters and entries in storage order and trust their
    sizes: InputError names `path` and the first that does not fit. Each takes the memory layout of its parameter.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    rows: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith(f"optimizer.{name}."):
            index, _, entry = key.removeprefix(f"optimizer.{name}.").partition(".")
            if not (index.isascii() and index.isdigit() and int(index) < len(parameters)):
                raise _misfit(path, key, "of no parameter")
            rows.setdefault(int(index), {})[entry] = value
    expected = _entries(optimizer)
    for index, row in rows.items():
        for entry in dict.fromkeys((*expected, *row)):
            key = f"optimizer.{name}.{index}.{entry}"
            if (entry in row) != (entry in expected):
                raise _misfit(path, key, "missing" if entry in expected else "of another optimiser")
            shape = parameters[index].shape if expected[entry] else torch.Size()
            _check_tensor(row[entry], shape, parameters[index].dtype if expected[entry] else torch.float32, path, key)
            if entry in NEVER_NEGATIVE and (row[entry] < 0).any():
                raise _misfit(path, key, "negative")
    optimizer.load_state_dict({"state": rows, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter in parameters:
        row = optimizer.state[parameter]
        for entry, value in row.items():
            if expected[entry]:
                row[entry] = torch.empty_like(parameter).copy_(value)


def _entries(optimizer: torch.optim.Optimizer) -> dict[str, bool]:
    """Return what such an optimiser keeps of a parameter, and whether it has the parameter's shape, from a trial."""
    accepted = inspect.signature(type(optimizer)).parameters
    trial = nn.Parameter(torch.zeros(2))
    trial.grad = torch.zeros(2)
    options = {key: value for key, value in optimizer.defaults.items() if key in accepted}
    other = type(optimizer)([trial], **options)
    other.step()
    return {entry: value.shape == trial.shape for entry, value in other.state[trial].items()}


def _check_tensor(found: Tensor, shape: torch.Size, dtype: torch.dtype, path: str | Path, key: str) -> None:
    """Raise InputError where a stored tensor is not what the network has: another shape, type, or not finite."""
    if found.shape != shape:
        raise _misfit(path, key, f"of shape {tuple(found.shape)}, not {tuple(shape)}")
    if found.dtype != dtype:
        raise _misfit(path, key, f"{found.dtype}, not {dtype}".replace("torch.", ""))
    if found.is_floating_point() and not found.isfinite().all():
        raise _misfit(path, key, "not finite")


def _misfit(path: str | Path, key: str, what: str) -> InputError:
    return InputError(f"{path}: {key} is {what}; resume with the recipe that wrote the checkpoint, or take another one")


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], about: Mapping) -> None:
    """Write tensors and the JSON-able `about` to `path`, with a checksum of both: whole or not at all."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    told = json.dumps(dict(about))
    save_tensors(path, ready, {"t2ilib": told, "sha256": digest(ready, told)})


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return tensors (on the CPU) and `about` of a checkpoint, whose step and recipe are there.

    InputError names a file that is missing, foreign, or damaged, which its checksum tells.
    """
    try:  # a signal inside safetensors would look like damage
        with undivided("reading a checkpoint"), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            about = json.loads(metadata["t2ilib"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint; name one that is there (t2i runs lists the runs)") from None
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a whole checkpoint of ours ({error}); remove it or take another") from None
    if "sha256" in metadata and metadata["sha256"] != digest(tensors, metadata["t2ilib"]):
        raise InputError(f"{path}: not a whole checkpoint of ours (its checksum differs); remove it or take another")
    _check_known(about, path)
    return tensors, about


def read_about(path: Path) -> dict:
    """Return `about` of a checkpoint alone, without its tensors; InputError as `read_checkpoint`, but no checksum."""
    try:
        with undivided("reading a checkpoint"), safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})["t2ilib"])
    except (SafetensorError, KeyError, ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: not a whole checkpoint of ours ({error}); remove it or take another") from None
    _check_known(about, path)
    return about


def _check_known(about: Any, path: Path) -> None:
    """Raise InputError where step and recipe are missing, or the record is none of that step."""
    check_about(about, {"step": int, "recipe": dict}, path)
    named = re.fullmatch(r"step_([0-9]{8,})\.safetensors", path.name)
    if named and int(named[1]) != about["step"]:
        raise InputError(f"{path}: holds step {about['step']}, not the one that its name says; give it its name back")
    if (record := about.get("record")) is not None:
        step = record.get("step") if isinstance(record, dict) else None
        numbers = isinstance(record, dict) and all(type(value) in (int, float) for value in record.values())
        if step != about["step"] or not numbers or type(record.get("images", 0)) is not int:
            told = one_line(repr(record))
            raise InputError(f"{path}: not a whole checkpoint of ours (its record is {told}); take another")


def check_about(about: Any, required: Mapping[str, type], path: Path) -> None:
    """Raise InputError where what a checkpoint tells of itself lacks an entry, or has one that cannot be."""
    for key, kind in required.items():
        value = about.get(key) if isinstance(about, dict) else None
        if type(value) is not kind or (kind in (int, float) and not 0 <= value < MOST):
            raise InputError(f"{path}: not a whole checkpoint of ours (its {key} is {value!r}); take another")


def check_encoders(
    found: Mapping[str, str],
    about: Mapping,
    path: Path,
    names: Mapping[str, str] | None = None,
    remedy: str = "train anew in another folder, or put the encoder of that time back",
) -> None:
    """Raise InputError where an encoder, role -> fingerprint, is not the one that the checkpoint was trained with.

    Roles that only one side has are passed over: old checkpoints name none. `names`: role -> name, for the message;
    its `remedy` may hold "{role}".
    """
    trained = about.get("encoders", {})
    if not isinstance(trained, dict):
        raise InputError(f"{path}: not a whole checkpoint of ours (its encoders are {trained!r}); take another")
    for role, fingerprint in found.items():
        if trained.get(role, fingerprint) != fingerprint:
            raise InputError(
                f"{path}: was trained with another {role} encoder than the {(names or {}).get(role, 'one')} that is "
                f"here now; {remedy.format(role=role)}"
            )


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
    for key, value in own.items():
        _check_tensor(value, expected[key].shape, expected[key].dtype, path, f"{prefix}.{key}")
    module.load_state_dict(own)
