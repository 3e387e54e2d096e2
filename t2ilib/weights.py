"""A trained network on disk: a folder of config.json (what it is) and model.safetensors (half precision)."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from t2ilib.errors import InputError, one_line
from t2ilib.files import atomic, read_json, write_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
VERSION = 1


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on the CPU, floating-point ones in half precision: enough to paint and to read with."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in ready.items()}


def digest(tensors: Mapping[str, Tensor], about: str = "") -> str:
    """Return the SHA-256 of `about` and of names and contents of tensors, whatever their order and device."""
    found = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write contiguous tensors of the CPU to `path`, whole or not at all; InputError where it cannot be written."""
    with atomic(path) as temporary:
        try:
            save_file(dict(tensors), temporary, metadata=dict(metadata or {}))
        except SafetensorError as error:  # its word for a full disk
            raise OSError(str(error)) from error


def save_network(folder: str | Path, kind: str, config: Mapping, network: nn.Module) -> None:
    """Write the two files into `folder`, each whole or not at all; `kind` says who can read them."""
    folder = Path(folder)
    save_tensors(folder / WEIGHTS, halved(network.state_dict()))
    write_json(folder / CONFIG, {**described(kind), **config})


def described(kind: str) -> dict[str, str | int]:
    """Return the entries of config.json that say what kind of network the folder holds."""
    return {"format": kind, "version": VERSION}


def is_network(folder: str | Path) -> bool:
    """Say whether `folder` holds both files, damaged or not."""
    return all((Path(folder) / name).is_file() for name in (CONFIG, WEIGHTS))


def copy_network(source: str | Path, folder: str | Path) -> None:
    """Copy the two files of a trained network; InputError when `source` does not hold them."""
    if not is_network(source):
        raise InputError(f"{source}: holds no finished network; train it to an evaluation first")
    for name in (CONFIG, WEIGHTS):
        with atomic(Path(folder) / name) as temporary:
            shutil.copyfile(Path(source) / name, temporary)


def read_config(folder: str | Path, kind: str, remedy: str) -> dict:
    """Return what config.json holds; InputError names what is missing, damaged or of another kind."""
    path = Path(folder) / CONFIG
    for file in (path, path.with_name(WEIGHTS)):
        if not file.is_file():
            raise InputError(f"{file}: missing; {remedy}")
    config = read_json(path, remedy)
    if not isinstance(config, dict) or not {"format", "version"} <= config.keys():
        raise InputError(f"{path}: damaged (it does not say its format and version); {remedy}")
    found = (config["format"], config["version"])
    if found != (kind, VERSION):
        told = f"{one_line(found[0])} of version {one_line(found[1])}"
        raise InputError(f"{path}: holds {told}, not {kind} of version {VERSION}; {remedy}")
    return config


def check_shapes(folder: str | Path, network: nn.Module, remedy: str) -> None:
    """Raise InputError, naming the file and the entry, where model.safetensors does not fit `network`.

    Only the header is read, and `network` may lie on the device "meta": sizes that nobody has cost nothing.
    """
    stored = stored_shapes(folder, remedy)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    for name in sorted(stored.keys() | expected.keys()):
        if stored.get(name) != expected.get(name):
            told = f"{one_line(name)} is {stored.get(name, 'missing')}, not {expected.get(name, 'there')}"
            raise InputError(f"{Path(folder) / WEIGHTS}: damaged, or of another network ({told}); {remedy}")


def stored_shapes(folder: str | Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what model.safetensors holds, from its header."""
    path = Path(folder) / WEIGHTS
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); {remedy}") from error


def load_weights(folder: str | Path, network: nn.Module, remedy: str) -> None:
    """Load model.safetensors into `network`; InputError names the file when it is damaged or does not fit."""
    path = Path(folder) / WEIGHTS
    try:
        stored = load_file(path)
        for name, value in network.state_dict().items():
            if name in stored and not (_kind(stored[name]) == _kind(value) and stored[name].isfinite().all()):
                raise RuntimeError(f"{name} is not finite, or not of the kind {value.dtype}")
        network.load_state_dict(stored)
    except (SafetensorError, RuntimeError, OSError) as error:
        reason = one_line(str(error).splitlines()[0], 200)
        raise InputError(f"{path}: damaged, or of another network ({reason}); {remedy}") from error


def _kind(value: Tensor) -> tuple[bool, bool]:
    return value.is_floating_point(), value.is_complex()
