"""A trained network on disk: a folder of config.json (what it is) and model.safetensors (half precision)."""

import hashlib
import json
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
REPORT = "report"  # the entry of config.json that tells of the training and says nothing about the network
BELONGS = "config"  # the entry of the weights' metadata with the digest of the config.json that they belong to
SYSTEM = "t2ilib"  # the entry of the metadata that a system's file has


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
    """Write the two files into `folder`, each whole or not at all; `kind` says who can read them.

    InputError, before anything is written, for weights that half precision does not hold.
    """
    path, told = Path(folder) / WEIGHTS, {**described(kind), **config}
    remedy = "nothing is written; train with a lower learning rate"
    save_tensors(path, exportable(network.state_dict(), network, path, remedy), {BELONGS: _digest_of(told)})
    write_json(path.with_name(CONFIG), told)


def exportable(state: Mapping[str, Tensor], network: nn.Module, source: str | Path, remedy: str) -> dict[str, Tensor]:
    """Return a state of `network` in half precision; InputError for one that could not be read again.

    `network` may lie on the device "meta": only its shapes and types count. `source` names the state in the message.
    """
    if wrong := fault(state, network):
        raise InputError(f"{source}: {wrong}; {remedy}")
    small = halved(state)
    if wrong := fault(small, network):
        raise InputError(f"{source}: in half precision {wrong}; {remedy}")
    return small


def fault(state: Mapping[str, Tensor], network: nn.Module) -> str | None:
    """Return what is wrong with a state of `network`, entry by entry, its first fault; None for a sound one.

    Shapes and types must be the network's, floating-point numbers may have half precision, all must be finite, and
    variances not negative. `network` may lie on the device "meta".
    """
    expected = network.state_dict()
    for name in sorted(state.keys() | expected.keys()):
        if what := _fault(name, state.get(name), expected.get(name)):
            return f"{one_line(name)} is {what}"
    return None


def _fault(name: str, found: Tensor | None, expected: Tensor | None) -> str | None:
    if found is None or expected is None:
        return "missing" if found is None else "of another network"
    if found.shape != expected.shape:
        return f"of shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    if found.dtype != expected.dtype and not (expected.is_floating_point() and found.dtype == torch.half):
        return f"{found.dtype}, not {expected.dtype}".replace("torch.", "")
    if not found.isfinite().all():
        return "not finite"
    return "negative, a variance" if name.endswith("running_var") and bool((found < 0).any()) else None


def _digest_of(config: Mapping) -> str:
    """Return the SHA-256 of what config.json says about the network."""
    told = {key: value for key, value in config.items() if key != REPORT}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def described(kind: str) -> dict[str, str | int]:
    """Return the entries of config.json that say what kind of network the folder holds."""
    return {"format": kind, "version": VERSION}


def is_network(folder: str | Path) -> bool:
    """Say whether `folder` holds both files, damaged or not."""
    return all((Path(folder) / name).is_file() for name in (CONFIG, WEIGHTS))


def copy_network(source: str | Path, folder: str | Path) -> None:
    """Copy the two files of a trained network; InputError when `source` does not hold them, or holds damaged ones.

    So it is where `folder` holds such files that are of something else.
    """
    if not is_network(source):
        raise InputError(f"{source}: holds no finished network; train it to an evaluation first")
    remedy = "train it again"
    kind = _kind_of(Path(source) / CONFIG)
    if kind is None:
        raise InputError(f"{Path(source) / CONFIG}: damaged; {remedy}")
    check_exportable(folder, kind)
    check_belongs(source, read_json(Path(source) / CONFIG, remedy), remedy)
    if odd := [name for name, value in _stored(Path(source) / WEIGHTS, remedy).items() if not value.isfinite().all()]:
        raise InputError(f"{Path(source) / WEIGHTS}: {one_line(odd[0])} is not finite; {remedy}")
    for name in (CONFIG, WEIGHTS):
        with atomic(Path(folder) / name) as temporary:
            shutil.copyfile(Path(source) / name, temporary)


def check_exportable(path: str | Path, kind: str | None = None) -> None:
    """Raise InputError where writing a network to `path` would replace what is no such network of ours.

    `path` is a system's .safetensors file, or, for a network of this `kind`, a folder.
    """
    path, remedy = Path(path), "choose another place, or move it away"
    files = (path,) if kind is None else (path / CONFIG, path / WEIGHTS)
    if not any(file.exists() or file.is_symlink() for file in files):
        return
    if kind is None and not (path.is_file() and SYSTEM in _metadata(path)):
        raise InputError(f"{path}: exists, and is no exported system; {remedy}")
    if kind is not None and _kind_of(files[0]) != kind:
        raise InputError(f"{path}: holds {CONFIG} or {WEIGHTS} of something else than {kind}; {remedy}")


def _kind_of(path: Path) -> str | None:
    """Return the format that a config.json declares; None for what is none of ours."""
    try:
        config = read_json(path, "")
    except InputError:
        return None
    found = config.get("format") if isinstance(config, dict) else None
    return found if isinstance(found, str) else None


def _metadata(path: Path) -> dict[str, str]:
    """Return what a safetensors file tells of itself; of any other file nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def check_belongs(folder: str | Path, config: Mapping, remedy: str) -> None:
    """Raise InputError where model.safetensors was written with another config.json; older files do not say."""
    path = Path(folder) / WEIGHTS
    if _metadata(path).get(BELONGS, expected := _digest_of(config)) != expected:
        raise InputError(f"{path.with_name(CONFIG)}: changed, or of other weights; put it back, or {remedy}")


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


def shapes_of(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what a safetensors file holds, from its header alone."""
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def stored_shapes(folder: str | Path, remedy: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what model.safetensors holds."""
    path = Path(folder) / WEIGHTS
    try:
        return shapes_of(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); {remedy}") from error


def load_weights(folder: str | Path, network: nn.Module, remedy: str) -> None:
    """Load model.safetensors into `network`; InputError names the file when it is damaged or does not fit."""
    path = Path(folder) / WEIGHTS
    stored = _stored(path, remedy)
    if wrong := fault(stored, network):
        raise InputError(f"{path}: damaged, or of another network ({wrong}); {remedy}")
    network.load_state_dict(stored)


def _stored(path: Path, remedy: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); {remedy}") from error
