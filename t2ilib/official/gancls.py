"""The stabilised reimplementation's GAN-CLS: its names, and sizes from shapes."""

from typing import Any

import torch

from t2ilib.models.gancls import GANCLSConfig
from t2ilib.official.released import Entries, Released, vote


def sizes(entries: Entries) -> dict[str, Any]:
    """Return the sizes that the entries (our names) agree on: where they differ, most of them decide."""
    up = [shape[1] for shape in kernels(entries, "generator.stages.")][:-1]
    down = [shape[0] for shape in kernels(entries, "discriminator.stages.")]
    joined = entries["generator.stages.0.weight"].shape[0]  # condition and noise
    found = {"joint": False, "image_size": 4 * 2 ** len(down)}
    found["ngf"] = vote(size // 2**i for i, size in enumerate(reversed(up)))
    found["ndf"] = vote(size // 2**i for i, size in enumerate(down))
    projections = [value for name, value in entries.items() if ".projection." in name and value.ndim]
    if not projections:
        return found | {"noise_dim": joined, "text": False}
    found["projected_dim"] = vote(len(value) for value in projections)
    found["embedding_dim"] = vote(value.shape[1] for value in projections if value.ndim == 2)
    return found | {"noise_dim": joined - found["projected_dim"]}


def kernels(entries: Entries, beginning: str) -> list[torch.Size]:
    """Return the shapes of the convolutions `beginning` + index, in the network's order, not the file's."""
    names = [name for name, value in entries.items() if name.startswith(beginning) and value.ndim == 4]
    return [entries[name].shape for name in sorted(names, key=lambda name: int(name.split(".")[2]))]


NAMES = {
    "generator.netG.": "generator.stages.",
    "discriminator.netD_1.": "discriminator.stages.",
    "discriminator.netD_2.0.": "discriminator.head.",
    "discriminator.projector.projection.": "discriminator.projection.",
}
GANCLS = Released(
    networks={"generator": "generator", "discriminator": "discriminator", "critic": "discriminator"},
    names=NAMES,
    config=lambda entries: GANCLSConfig(**sizes(entries)),
)
