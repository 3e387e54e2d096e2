"""One door for the checkpoints that the authors published: `load("dfgan", checkpoint)`.

A system has one entry in `RELEASED`: what its networks are called in the files, how the released names become ours,
and how sizes follow from shapes.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from t2ilib.errors import InputError
from t2ilib.models import SYSTEMS, System
from t2ilib.models.dfgan import DFGANConfig
from t2ilib.models.gancls import GANCLSConfig

LISTED = 5  # entries that an error message names before it counts the rest
Checkpoint = str | Path | Mapping[str, Any]
Entries = dict[str, Tensor]


def gancls_config(entries: Entries) -> GANCLSConfig:
    """Return the sizes that GAN-CLS's entries (our names) agree on: where they differ, most of them decide."""
    up = [shape[1] for shape in _kernels(entries, "generator.stages.")][:-1]
    down = [shape[0] for shape in _kernels(entries, "discriminator.stages.")]
    joined = entries["generator.stages.0.weight"].shape[0]  # condition and noise
    shared = {"joint": False, "image_size": 4 * 2 ** len(down)}
    shared["ngf"] = _vote(size // 2**i for i, size in enumerate(reversed(up)))
    shared["ndf"] = _vote(size // 2**i for i, size in enumerate(down))
    projections = [value for name, value in entries.items() if ".projection." in name and value.ndim]
    if not projections:
        return GANCLSConfig(noise_dim=joined, text=False, **shared)
    projected = _vote(len(value) for value in projections)
    embedding = _vote(value.shape[1] for value in projections if value.ndim == 2)
    return GANCLSConfig(noise_dim=joined - projected, embedding_dim=embedding, projected_dim=projected, **shared)


def dfgan_config(entries: Entries) -> DFGANConfig:
    """Return the sizes that DF-GAN's entries (our names) agree on; an entry or a network may be absent or misshapen."""
    shapes = {name: value.shape for name, value in entries.items()}
    widths = {"discriminator.start.weight": 0, "discriminator.start.bias": 0, "generator.picture.1.weight": 1}
    found = [shapes[name][axis] for name, axis in widths.items() if name in shapes]
    nf = _vote(found + [shape[0] // 2 for name, shape in shapes.items() if name == "discriminator.head.joint.0.weight"])
    blocks = {tuple(name.split(".")[:3:2]) for name in shapes if ".blocks." in name}
    count = max(Counter(network for network, _ in blocks).values())
    sizes = {"image_size": 4 * 2**count, "nf": nf}
    if "discriminator.head.joint.0.weight" in shapes:
        sizes["embedding_dim"] = shapes["discriminator.head.joint.0.weight"][1] - nf * min(2**count, 8)
    conditions = [shape[1] for name, shape in shapes.items() if name.endswith(("scale.0.weight", "shift.0.weight"))]
    if "generator.start.weight" in shapes:
        sizes["noise_dim"] = shapes["generator.start.weight"][1]
        sizes["embedding_dim"] = _vote(conditions) - sizes["noise_dim"]
    elif conditions:
        sizes["noise_dim"] = _vote(conditions) - sizes["embedding_dim"]
    return DFGANConfig(**sizes)


def _kernels(entries: Entries, beginning: str) -> list[torch.Size]:
    """Return the shapes of the convolutions `beginning` + index, in the network's order, not the file's."""
    names = [name for name, value in entries.items() if name.startswith(beginning) and value.ndim == 4]
    return [entries[name].shape for name in sorted(names, key=lambda name: int(name.split(".")[2]))]


def _vote(sizes: Iterable[int]) -> int:
    return Counter(sizes).most_common(1)[0][0]


@dataclass(frozen=True)
class Released:
    """How one system's published files are read."""

    networks: Mapping[str, str]  # a network's name in the file -> ours
    names: Mapping[str, str]  # beginning of an entry's name, "network.released" -> "network.ours"
    config: Callable[[Entries], Any]  # entries under our names -> configuration
    parts: Mapping[str, str] = field(default_factory=dict)  # further along the name, ".released." -> ".ours."

    def ours(self, name: str) -> str:
        """Return our name of the released entry `name`."""
        return _rename(name, self.names, self.parts)

    def theirs(self, name: str) -> str:
        """Return the released name of our entry `name`."""
        inverse = ({ours: theirs for theirs, ours in names.items()} for names in (self.names, self.parts))
        return _rename(name, *inverse)

    def in_file(self, name: str) -> str:
        """Return what a file calls our entry `name`, its network included."""
        network, _, rest = self.theirs(name).partition(".")
        networks = {ours: theirs for theirs, ours in reversed(self.networks.items())}  # the first of two spellings
        return f"{networks.get(network, network)}.{rest}"


RELEASED: dict[str, Released] = {
    "gancls": Released(
        networks={"generator": "generator", "discriminator": "discriminator", "critic": "discriminator"},
        names={
            "generator.netG.": "generator.stages.",
            "discriminator.netD_1.": "discriminator.stages.",
            "discriminator.netD_2.0.": "discriminator.head.",
            "discriminator.projector.projection.": "discriminator.projection.",
        },
        config=gancls_config,
    ),
    "dfgan": Released(
        networks={"netG": "generator", "netD": "discriminator", "netC": "head"},
        names={
            "generator.fc.": "generator.start.",
            "generator.GBlocks.": "generator.blocks.",
            "generator.to_rgb.": "generator.picture.",
            "discriminator.conv_img.": "discriminator.start.",
            "discriminator.DBlocks.": "discriminator.blocks.",
            "head.joint_conv.": "discriminator.head.joint.",
        },
        parts={
            ".fuse1.": ".fusions.0.",
            ".fuse2.": ".fusions.1.",
            ".affine0.": ".affines.0.",
            ".affine1.": ".affines.1.",
            ".fc_gamma.linear1.": ".scale.0.",
            ".fc_gamma.linear2.": ".scale.2.",
            ".fc_beta.linear1.": ".shift.0.",
            ".fc_beta.linear2.": ".shift.2.",
            ".c1.": ".convolutions.0.",
            ".c2.": ".convolutions.1.",
            ".c_sc.": ".shortcut.",
            ".conv_r.": ".residual.",
            ".conv_s.": ".skip.",
            ".gamma": ".gain",
        },
        config=dfgan_config,
    ),
}


def load(name: str, checkpoint: Checkpoint) -> System:
    """Return system `name` with released weights, in evaluation mode, its sizes taken from the shapes.

    `checkpoint` is a file (.safetensors, or what torch.save wrote: only tensors and plain containers are read), or a
    mapping from networks to state dicts or files: {"generator": ..., "discriminator": ...}. A flat mapping has names
    such as "generator.netG.0.weight". All may lie under "model", beside entries that are passed over. DataParallel's
    "module." is dropped; a WGAN's "critic" is the discriminator.
    Raises InputError for an unreadable file, and one for all missing, unexpected and misshapen entries together.
    """
    if name not in RELEASED:
        raise InputError(f"{name}: no released checkpoints are known; choose among {', '.join(RELEASED)}")
    released = RELEASED[name]
    source = str(checkpoint) if isinstance(checkpoint, str | Path) else "checkpoint"
    entries = {released.ours(key): value for key, value in _flatten(checkpoint, released, source).items()}
    config, problems = _fit(SYSTEMS[name], released, entries)
    if problems:
        networks = ", ".join(released.networks)
        raise InputError(f"{source}: not a {name} checkpoint (networks: {networks}): {_describe(problems)}")
    with next(iter(entries.values())).device:
        system = SYSTEMS[name](config)
    system.load_state_dict(entries, strict=False)  # counters alone may be missing
    return system.eval()


def _rename(name: str, beginnings: Mapping[str, str], parts: Mapping[str, str]) -> str:
    for old, new in beginnings.items():
        if name.startswith(old):
            name = new + name.removeprefix(old)
            break
    for old, new in parts.items():
        name = name.replace(old, new)
    return name


def _read(path: str | Path) -> Mapping[str, Any]:
    """Return the mapping in a checkpoint file, on the CPU."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a checkpoint")
    try:
        safe = path.suffix == ".safetensors"
        content = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere in either parser
        raise InputError(f"{path}: truncated, or not a checkpoint of plain tensors; download it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}; a checkpoint maps names to tensors")
    return content


def _flatten(checkpoint: Checkpoint, released: Released, source: str) -> Entries:
    """Return {"network.released name": tensor}, with our names of the networks."""
    entries = {}
    content = _read(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    if isinstance(content.get("model"), Mapping):  # beside it lie optimisers and the epoch
        content = content["model"]
    for name, part in content.items():
        value = _read(part) if isinstance(part, str | Path) else part
        if isinstance(value, Mapping):
            entries.update({f"{name}.{key.removeprefix('module.')}": tensor for key, tensor in value.items()})
        else:
            entries[name] = value
    if other := [name for name, value in entries.items() if not isinstance(value, Tensor)]:
        raise InputError(f"{source}: {_list(other)} must be tensors; give the networks' state dicts alone")
    if not entries:
        raise InputError(f"{source}: no entries; give {{network: state dict}} for {', '.join(released.networks)}")
    return _name_networks(entries, released.networks)


def _name_networks(entries: Entries, networks: Mapping[str, str]) -> Entries:
    """Drop `module.` and give networks our names; a second network for a place taken keeps its own, as unexpected."""
    split = {tuple(name.removeprefix("module.").partition(".")[::2]): value for name, value in entries.items()}
    present = {network for network, _ in split}
    ours = {old: new for old, new in networks.items() if old == new or new not in present}
    return {f"{ours.get(old, old)}.{rest.removeprefix('module.')}": value for (old, rest), value in split.items()}


def _fit(system: type[System], released: Released, entries: Entries) -> tuple[Any, dict[str, list[str]]]:
    """Return the configuration, default or inferred, that fits the entries best, and what still does not fit."""
    configs = [system.Config()]
    with suppress(ValueError, LookupError):  # another architecture's entries may suggest no sizes, or impossible ones
        configs.append(released.config(entries))
    found = [(config, _problems(system, config, released, entries)) for config in configs]
    return min(found, key=lambda pair: sum(map(len, pair[1].values())))


def _problems(system: type[System], config: Any, released: Released, entries: Entries) -> dict[str, list[str]]:
    """Return the entries, under released names, in which a checkpoint differs from the system with this `config`."""
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in system(config).state_dict().items()}
    missing = [name for name in wanted if name not in entries and not name.endswith("num_batches_tracked")]
    shapes = {name: tuple(value.shape) for name, value in entries.items()}
    misshapen = [name for name in wanted if name in shapes and shapes[name] != wanted[name]]
    problems = {
        "missing": [released.in_file(name) for name in missing],
        "unexpected": [released.in_file(name) for name in shapes if name not in wanted],
        "misshapen": [f"{released.in_file(name)} {shapes[name]}, not {wanted[name]}" for name in misshapen],
    }
    return {kind: names for kind, names in problems.items() if names}


def _describe(problems: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind} {_list(names)}" for kind, names in problems.items())


def _list(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
