"""One door for the checkpoints that the authors published: `load("dfgan", checkpoint)`.

Each paper has a file here that says what its networks are called, how the released names become ours, and how sizes
follow from shapes.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t2ilib.errors import InputError, one_line
from t2ilib.models import SYSTEMS, System
from t2ilib.official.dfgan import DFGAN
from t2ilib.official.files import FLOATS, is_stored, read_tensors
from t2ilib.official.galip import GALIP
from t2ilib.official.gancls import GANCLS
from t2ilib.official.released import STRAY, Entries, Released
from t2ilib.official.wgan import WGAN

LISTED = 5  # entries that an error message names before it counts the rest
Checkpoint = str | Path | Mapping[str, Any]


RELEASED: dict[str, Released] = {"gancls": GANCLS, "wgan": WGAN, "dfgan": DFGAN, "galip": GALIP}


def load(name: str, checkpoint: Checkpoint, clip: Any = None) -> System:
    """Return system `name` with released weights, in evaluation mode, its sizes taken from the shapes.

    `checkpoint` is a file (.safetensors, or what torch.save wrote: only tensors and plain containers are read), or a
    mapping from networks to state dicts or files: {"generator": ..., "discriminator": ...}. A flat mapping has names
    such as "generator.netG.0.weight". All may lie under "model", beside entries that are passed over. DataParallel's
    "module." is dropped; a WGAN's "critic" is the discriminator.
    `clip` (a CLIPEncoder) is for GALIP alone, whose networks look through one: then pictures have embeddings. Without
    it the vision transformer in the file is used, which gives none.
    Raises InputError for an unreadable file, one for all missing, unexpected and misshapen entries together, and one
    for another CLIP than the file's.
    """
    if name not in RELEASED:
        raise InputError(f"{name}: no released checkpoints are known; choose among {', '.join(RELEASED)}")
    released = RELEASED[name] if clip is None else RELEASED[name].around(clip)
    source = str(checkpoint) if isinstance(checkpoint, str | Path) else "checkpoint"
    entries = _distinct(source, ((released.ours(key), value) for key, value in _flatten(checkpoint, released, source)))
    config, problems = _fit(SYSTEMS[name], released, entries)
    if problems:
        networks = ", ".join(released.networks)
        raise InputError(f"{source}: not a {name} checkpoint (networks: {networks}): {_describe(problems)}")
    with next(iter(entries.values())).device:
        system = SYSTEMS[name](config, _encoders(released, config, entries, source))
    system.load_state_dict(entries, strict=False)  # counters alone may be missing; an encoder's are not its own
    return system.eval()


def _encoders(released: Released, config: Any, entries: Entries, source: str) -> dict[str, Any]:
    """Return the encoders of a file's system; an InputError begins with the file's name."""
    try:
        return released.encoders(config, entries)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error


def _flatten(checkpoint: Checkpoint, released: Released, source: str) -> Iterable[tuple[str, Tensor]]:
    """Return pairs of "network.released name" and tensor, with our names of the networks."""
    from_file = isinstance(checkpoint, str | Path)
    content = read_tensors(checkpoint) if from_file else checkpoint
    if not isinstance(content, Mapping):
        raise InputError(f"{source}: a {type(content).__name__}; give a file, or a mapping of networks to state dicts")
    if isinstance(content.get("model"), Mapping):  # beside it lie optimisers and the epoch
        content = content["model"]
    pairs = []
    for name, part in content.items():
        names_file = isinstance(part, str | Path) and not from_file  # what a file holds names no other file
        value = read_tensors(part) if names_file else part
        if isinstance(value, Mapping):
            pairs += [(f"{name}.{str(key).removeprefix('module.')}", tensor) for key, tensor in value.items()]
        else:
            pairs.append((str(name), value))
    if other := [name for name, value in pairs if not isinstance(value, Tensor)]:
        raise InputError(f"{source}: {_list(other)} must be tensors; give the networks' state dicts alone")
    if not pairs:
        raise InputError(f"{source}: no entries; give {{network: state dict}} for {', '.join(released.networks)}")
    return _name_networks(_distinct(source, pairs), released.networks)


def _distinct(source: str, pairs: Iterable[tuple[str, Tensor]]) -> Entries:
    """Return entries by name; InputError where two have one name."""
    found: Entries = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"{source}: {_list([name])} is there twice, under two spellings; remove one")
        found[name] = value
    return found


def _name_networks(entries: Entries, networks: Mapping[str, str]) -> Iterable[tuple[str, Tensor]]:
    """Drop `module.` and give networks our names; a second network for a place that is taken stays a stray."""
    split = [(*name.removeprefix("module.").partition(".")[::2], value) for name, value in entries.items()]
    present, places = {network for network, _, _ in split}, {}
    for old, new in networks.items():
        if old in present and new not in places.values():
            places[old] = new
    taken = set(places.values())
    strays = {old: f"{STRAY}{old}" for old in present - set(places) if networks.get(old, old) in taken}
    names = places | strays
    return ((f"{names.get(old, old)}.{rest.removeprefix('module.')}", value) for old, rest, value in split)


def _fit(system: type[System], released: Released, entries: Entries) -> tuple[Any, dict[str, list[str]]]:
    """Return the configuration, default or inferred, that fits the entries best, and what still does not fit."""
    usual = system.Config(**released.fixed)
    found = [(usual, _problems(system, usual, released, entries))]
    # another architecture's entries may suggest no sizes, or impossible ones
    with suppress(ValueError, LookupError, TypeError, ArithmeticError, RuntimeError):
        config = released.config(entries)
        found.append((config, _problems(system, config, released, entries)))
    return min(found, key=lambda pair: sum(map(len, pair[1].values())))


def _problems(system: type[System], config: Any, released: Released, entries: Entries) -> dict[str, list[str]]:
    """Return the entries, under released names, in which a checkpoint differs from the system with this `config`."""
    with torch.device("meta"):
        wanted = released.wanted(system(config), entries)
    fitting = [name for name in entries if name in wanted and tuple(entries[name].shape) == wanted[name]]
    odd = [name for name in fitting if not _is_sound(entries[name])]
    missing = [name for name in wanted if name not in entries and not name.endswith("num_batches_tracked")]
    shapes = {name: tuple(value.shape) for name, value in entries.items()}
    misshapen = [name for name in wanted if name in shapes and shapes[name] != wanted[name]]
    problems = {
        "missing": [released.in_file(name) for name in missing],
        "unexpected": [released.in_file(name) for name in shapes if name not in wanted],
        "not finite real": [released.in_file(name) for name in odd],
        "misshapen": [f"{released.in_file(name)} {shapes[name]}, not {wanted[name]}" for name in misshapen],
    }
    return {kind: names for kind, names in problems.items() if names}


def _is_sound(value: Tensor) -> bool:
    """Whether an entry is a plain tensor of finite real numbers, each of them stored; counters are whole."""
    if value.layout != torch.strided or value.is_quantized or value.is_complex():
        return False
    if value.is_meta:
        return True
    whole = value.ndim == 0 and not value.is_floating_point()
    return is_stored(value) and (whole or (value.dtype in FLOATS and bool(value.isfinite().all())))


def _describe(problems: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind} {_list(names)}" for kind, names in problems.items())


def _list(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(map(one_line, names[:LISTED])) + more
