"""GALIP's released file: its names, sizes from shapes, and the frozen CLIP that lies inside its generator.

Of that CLIP the file holds the vision transformer without its last layers. It is used where no CLIP is given; one that
is given must be the same. What no shape tells is the released network's: OpenAI's QuickGELU, heads of 64 channels,
blocks 2, 5 and 9 read by the discriminator, 2 to 9 prompted, pictures shown as the released code does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from math import isqrt
from typing import Any

import torch
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from t2ilib.errors import InputError
from t2ilib.models.galip import GALIPConfig
from t2ilib.models.vit import OpenViT, random_vit
from t2ilib.official.dfgan import DFGAN
from t2ilib.official.released import Entries, Released, vote

EYE = "eye."  # before the names of the CLIP's entries
LAST = ("ln_post.", "proj")  # its layers behind the blocks, which no released file holds
FIXED = {"preprocessing": "released"}
HALF = {"rtol": 1e-3, "atol": 1e-6}  # OpenAI's weights are stored in half precision
Shapes = Mapping[str, torch.Size]

PLACES = {  # size -> names of the entries that tell it, and along which axis
    "noise_dim": {"generator.start.weight": 1},
    "code_channels": {
        "generator.bridge.blocks.*.convolutions.0.weight": 1,
        "generator.bridge.blocks.*.convolutions.1.bias": 0,
        "generator.bridge.widen.weight": 1,
    },
    "clip_width": {
        "generator.bridge.widen.*": 0,
        "generator.bridge.narrow.weight": 1,
        "discriminator.blocks.*.skip.*": 0,
        "discriminator.last.skip.weight": 1,
        "eye.ln_pre.*": 0,
    },
    "discriminator_channels": {"discriminator.last.skip.*": 0, "discriminator.last.residual.*.weight": 0},
    "head_channels": {"discriminator.head.joint.2.weight": 1, "discriminator.head.joint.0.weight": 0},
    "joint": {"discriminator.head.joint.0.weight": 1},
    "condition": {"generator.*.scale.0.weight": 1, "generator.*.shift.0.weight": 1, "generator.bridge.prompts.*t": 1},
}


def config(entries: Entries, eye: OpenViT | None = None) -> GALIPConfig:
    """Return the sizes that the entries (our names) agree on; an entry or a network may be absent or misshapen.

    Depth and pixels of a CLIP that is not among the entries are those of `eye`, the one that was given.
    """
    shapes = {name: value.shape for name, value in entries.items()}
    usual = GALIPConfig()
    names = ("code_channels", "clip_width", "head_channels")
    sizes = {name: _agreed(_along(shapes, PLACES[name]), getattr(usual, name)) for name in names}
    sizes |= _lengths(shapes, usual)
    sizes["clip_grid"] = _agreed(_grids(shapes, sizes["code_channels"]), usual.clip_grid)
    patch = _along(shapes, {"eye.conv1.weight": 3}) or [32 if eye is None else eye.size // eye.grid]
    sizes["clip_size"] = sizes["clip_grid"] * patch[0]
    sizes |= _blocks(shapes, sizes["clip_width"], usual.clip_layers if eye is None else eye.layers)
    count = _count(shapes, "generator.blocks.") or len(usual.channels) - 1
    sizes["image_size"] = image_size(count, sizes["clip_grid"], sizes["clip_size"])
    ends = {"generator.picture.1.weight": 1, f"generator.blocks.{count - 1}.convolutions.*.bias": 0}
    sizes["nf"] = _agreed(_along(shapes, ends), usual.nf)
    return GALIPConfig(**sizes, **FIXED)


def image_size(blocks: int, grid: int, clip_size: int) -> int:
    """Return the pixels that a generator of so many blocks paints, from `grid` x `grid` patches on.

    Every block but the last leads to the next power of two. The last one leads to what the CLIP sees, where that is not
    beyond the next power (released: six blocks from 7 to 224), else to that power: no shape tells.
    """
    largest = 2 ** (grid.bit_length() + blocks - 1)
    smallest = max(grid, largest // 2)
    return clip_size if smallest < clip_size <= largest else largest


def prompted(count: int, layers: int) -> tuple[int, ...]:
    """Return the blocks, counted from 1, that see `count` prompts: from the second on (released: 2 to 9 of 12)."""
    first = 2 if count < layers else 1
    return tuple(range(first, first + count))


def tapped(count: int, layers: int) -> tuple[int, ...]:
    """Return the `count` blocks that the discriminator reads: spread as 2, 5, 9 of 12; the first ones if too many."""
    spread = [max(k + 1, layers * (2 * max(1, count - 1) + 7 * k) // (12 * max(1, count - 1))) for k in range(count)]
    return tuple(spread) if spread == sorted(set(spread)) else tuple(range(1, count + 1))


def _along(shapes: Shapes, places: Mapping[str, int]) -> list[int]:
    """Return the sizes of the entries of these names, each along its axis."""
    return [
        shape[axis]
        for pattern, axis in places.items()
        for name, shape in shapes.items()
        if len(shape) > axis and fnmatchcase(name, pattern)
    ]


def _agreed(sizes: list[int], usual: int) -> int:
    """Return the size that most entries tell; the paper's decides between two, and where none tells."""
    return vote([*sizes, usual])


def _lengths(shapes: Shapes, usual: GALIPConfig) -> dict[str, int]:
    """Return the lengths of noise and sentence, and the channels that the discriminator joins to the latter.

    The generator's start tells the first, its affines the sum of the first two, the head the sum of the last two.
    """
    noise, condition, channels, joint = (
        _along(shapes, PLACES[name]) for name in ("noise_dim", "condition", "discriminator_channels", "joint")
    )
    embedding_dim = usual.embedding_dim
    if noise and condition:
        embedding_dim = vote(condition) - noise[0]
    elif channels and joint:
        embedding_dim = joint[0] - vote(channels)
    if condition and not noise:
        noise = [vote(condition) - embedding_dim]
    return {
        "embedding_dim": embedding_dim,
        "noise_dim": _agreed(noise, usual.noise_dim),
        "discriminator_channels": _agreed(
            [*channels, *(size - embedding_dim for size in joint)], usual.discriminator_channels
        ),
    }


def _grids(shapes: Shapes, code_channels: int) -> list[int]:
    """Return what tells the patches along a side: the generator's start, the CLIP's positions, the head's kernels."""
    starts = _along(shapes, {"generator.start.*": 0})
    positions = _along(shapes, {"eye.positional_embedding": 0})
    kernels = _along(shapes, {"discriminator.head.joint.*.weight": 3})
    sides = [isqrt(size // code_channels) for size in starts] + [isqrt(max(0, size - 1)) for size in positions]
    return sides + ([sum(kernels) - 1] if len(kernels) == 2 else [])


def _blocks(shapes: Shapes, width: int, layers: int) -> dict[str, Any]:
    """Return the CLIP's depth, and which of its blocks are prompted and read; `layers` where the file has none."""
    layers = _count(shapes, "eye.transformer.resblocks.") or layers
    prompts = _agreed([size // width for size in _along(shapes, {"generator.bridge.prompts.*": 0})], min(8, layers))
    judged = any(name.startswith(("discriminator.blocks.", "discriminator.last.")) for name in shapes)
    taps = _count(shapes, "discriminator.blocks.") + 1 if judged else min(3, layers)
    layers = max(layers, prompts, taps)  # fewer than the other networks need: said of a CLIP that was given
    return {"clip_layers": layers, "prompts": prompted(prompts, layers), "taps": tapped(taps, layers)}


def _count(shapes: Shapes, beginning: str) -> int:
    """Return how many blocks there are, whose names go on with their numbers."""
    return len({name.removeprefix(beginning).partition(".")[0] for name in shapes if name.startswith(beginning)})


@dataclass(frozen=True)
class ReleasedGALIP(Released):
    """How GALIP's file is read: it may hold the CLIP, or be read for a `clip` that was given."""

    clip: Any = None  # a CLIPEncoder

    def around(self, clip: Any) -> "ReleasedGALIP":
        """Return how files are read for a system around `clip`; InputError for what is no vision transformer's CLIP."""
        if not isinstance(getattr(clip, "model", None), nn.Module):
            raise InputError(f"clip: a {type(clip).__name__}; give a CLIP, as load_encoder('clip') returns it")
        return replace(self, clip=clip, config=partial(config, eye=OpenViT.of(clip)))

    def wanted(self, system: nn.Module, entries: Entries) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the networks, and those of the CLIP where the entries hold any of it."""
        found = super().wanted(system, entries)
        if not _seen(entries):
            return found
        visual = system.eye.module.visual.state_dict()
        return found | {f"{EYE}{k}": tuple(v.shape) for k, v in visual.items() if not k.startswith(LAST)}

    def encoders(self, config: GALIPConfig, entries: Entries) -> dict[str, Any]:
        """Return the CLIP that was given, or the file's; InputError where there is none, or the two differ."""
        seen = _seen(entries)
        if self.clip is not None:
            self._check_given(config, seen)
            return {"clip": self.clip}
        if not seen:
            raise InputError(
                "holds no CLIP, which GALIP's networks look through: give clip=, the one that they were trained with "
                "(released: load_encoder('clip'))"
            )
        sizes = (config.clip_size, config.clip_grid, config.clip_width, config.clip_layers, config.embedding_dim)
        eye = random_vit(*sizes)
        eye.visual.load_state_dict(seen, strict=False)  # its last layers are not there
        eye.embeds = False
        return {"clip": eye}

    def _check_given(self, config: GALIPConfig, seen: Mapping[str, Tensor]) -> None:
        """Raise InputError where the CLIP that was given is not the one that the networks were trained around."""
        eye = OpenViT.of(self.clip)
        sizes = {"clip_size": eye.size, "clip_grid": eye.grid, "clip_width": eye.width, "clip_layers": eye.layers}
        sizes["embedding_dim"] = self.clip.sentence_dim
        told = {name: (size, getattr(config, name)) for name, size in sizes.items()}
        others = [f"{name} {given}, not {size}" for name, (given, size) in told.items() if given != size]
        if not any(isinstance(layer, QuickGELU) for layer in eye.visual.transformer.modules()):
            others.append("another activation than OpenAI's QuickGELU")
        weights = eye.visual.state_dict()
        if not others:
            others = [self.in_file(f"{EYE}{name}") for name in seen if not _agrees(seen[name], weights.get(name))]
        if others:
            more = f" and {len(others) - 5} more" if len(others) > 5 else ""
            raise InputError(
                f"clip: {self.clip.name} is not the CLIP that the file's networks were trained with: it differs in "
                f"{', '.join(others[:5])}{more}; give that one, or leave clip= out where the file holds it"
            )


def _seen(entries: Entries) -> dict[str, Tensor]:
    """Return the CLIP's entries, under their names in it."""
    return {name.removeprefix(EYE): value for name, value in entries.items() if name.startswith(EYE)}


def _agrees(stored: Tensor, given: Tensor | None) -> bool:
    """Whether two weights are one, but for half precision; shapes are all that is known of those on "meta"."""
    if given is None or given.shape != stored.shape:
        return False
    if stored.is_meta or given.is_meta:
        return True
    return torch.allclose(stored.to(given.device, torch.float32), given.float(), **HALF)


FUSION_CONVOLUTIONS = {  # `conv1` is a name of the CLIP's, too
    f"generator.mapping.FBlocks.{block}.conv{k + 1}.": f"generator.bridge.blocks.{block}.convolutions.{k}."
    for block in range(4)
    for k in range(2)
}
GALIP = ReleasedGALIP(
    networks={"netG": "generator", "netD": "discriminator", "netC": "head"},
    names={
        **FUSION_CONVOLUTIONS,
        "generator.fc_code.": "generator.start.",
        "generator.mapping.FBlocks.": "generator.bridge.blocks.",
        "generator.mapping.conv_fuse.": "generator.bridge.widen.",
        "generator.mapping.conv.": "generator.bridge.narrow.",
        "generator.mapping.fc_prompt.": "generator.bridge.prompts.",
        "generator.mapping.CLIP_ViT.": EYE,
        "generator.GBlocks.": "generator.blocks.",
        "generator.to_rgb.": "generator.picture.",
        "discriminator.DBlocks.": "discriminator.blocks.",
        "discriminator.main.": "discriminator.last.",
        "head.joint_conv.": "discriminator.head.joint.",
    },
    parts={**DFGAN.parts, ".beta": ".share"},
    config=config,
    fixed=FIXED,
)
