"""The picture tower of a CLIP, opened: what it is shown, what each block says, and prompts between its blocks.

A vision transformer (Dosovitskiy et al. 2021, https://arxiv.org/abs/2010.11929), as open_clip builds it for CLIP: a
picture's patches and one class token pass through residual blocks, here counted from 1; the class token becomes the
embedding. GALIP reads the patches between the blocks and, with visual prompts (Jia et al. 2022,
https://arxiv.org/abs/2203.12119), steers the blocks from outside. The weights stay as they are.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.transformer import QuickGELU, VisionTransformer
from torch import Tensor, nn

from t2ilib.errors import InputError
from t2ilib.pictures import resized


class OpenViT(nn.Module):
    """An open_clip vision transformer with a class token, of any size, between whose blocks one can look and act."""

    def __init__(
        self,
        visual: VisionTransformer,
        mean: Sequence[float] = OPENAI_DATASET_MEAN,
        std: Sequence[float] = OPENAI_DATASET_STD,
        embeds: bool = True,
    ):
        """Open `visual`; without `embeds` its last layers are not to be used, and there is no embedding."""
        super().__init__()
        self.visual, self.embeds = visual, embeds
        device = visual.class_embedding.device
        self.register_buffer("mean", torch.as_tensor(mean, device=device).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.as_tensor(std, device=device).view(3, 1, 1), persistent=False)
        self.size, self.grid = visual.image_size[0], visual.grid_size[0]  # pixels, patches, along one side
        self.width, self.layers = len(visual.class_embedding), len(visual.transformer.resblocks)

    @classmethod
    def of(cls, encoder: Any) -> "OpenViT":
        """Open the picture tower of a CLIP (`CLIPEncoder`), sharing its weights; InputError for one that is no ViT.

        One that is open already is returned as it is. Move the encoder to its device first: what is opened takes only
        the picture tower along.
        """
        if isinstance(encoder, cls):
            return encoder
        visual = getattr(getattr(encoder, "model", None), "visual", None)
        if kind := _unfit(visual):
            raise InputError(
                f"{encoder.name}: {kind}; choose a CLIP with a vision transformer, as toy-clip or ViT-B-32"
            )
        return cls(visual, encoder.mean.flatten(), encoder.std.flatten())

    def shown(self, images: Tensor, released: bool = False) -> Tensor:
        """Return what the network is shown of pictures (B, 3, H, W) in [-1, 1]: resized, in [0, 1], standardised.

        `released` is GALIP's code: it rescales twice, so that black is 0.5 and white 1 before they are standardised,
        and takes the nearest pixel where it resizes.
        """
        if released:
            halved = F.interpolate(images * 0.5 + 0.5, (self.size, self.size))
            pixels = (halved + 1) * 0.5
        else:
            pixels = (resized(images, self.size) + 1) / 2
        device = pixels.device  # an encoder that has moved since it was opened took its weights along, not these
        return (pixels - self.mean.to(device)) / self.std.to(device)

    def forward(
        self, shown: Tensor, taps: Sequence[int] = (), embedded: bool = True
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return patches after the blocks `taps` (B, taps, C, h, w) and the embedding (B, D), not normalised.

        None where there are no taps or no embedding. Without `embedded` the blocks behind the last tap are left out.
        """
        embedded, found = embedded and self.embeds, []
        tokens = self.tokens(self.visual.conv1(shown))
        for number, block in enumerate(self.visual.transformer.resblocks, 1):
            if not embedded and len(found) == len(taps):
                break
            tokens = block(tokens)
            if number in taps:
                found.append(self.patches(tokens))
        embedding = self.visual._pool(tokens)[0] if embedded else None
        if embedded and self.visual.proj is not None:
            embedding = embedding @ self.visual.proj
        return torch.stack(found, 1) if taps else None, embedding

    def prompted(self, maps: Tensor, prompts: Tensor | None = None, blocks: Sequence[int] = ()) -> Tensor:
        """Return what all blocks make of `maps` (B, C, h, w) in place of a picture's patches: (B, C, h, w).

        Block `blocks[k]` sees one token more, row k of `prompts` (B, blocks, C), which is removed behind it.
        """
        tokens = self.tokens(maps)
        for number, block in enumerate(self.visual.transformer.resblocks, 1):
            if number in blocks:
                prompt = prompts[:, blocks.index(number), None].to(tokens.dtype)
                tokens = block(torch.cat([tokens, prompt], 1))[:, :-1]
            else:
                tokens = block(tokens)
        return self.patches(tokens)

    def tokens(self, maps: Tensor) -> Tensor:
        """Return the tokens (B, 1 + h w, C) that the first block takes: class token, patches, positions, normalised."""
        visual = self.visual
        start = visual.class_embedding.to(maps.dtype).expand(len(maps), 1, -1)
        tokens = torch.cat([start, maps.flatten(2).transpose(1, 2)], 1)
        return visual.ln_pre(tokens + visual.positional_embedding.to(maps.dtype))

    def patches(self, tokens: Tensor) -> Tensor:
        """Return the patches of tokens (B, 1 + h w, C) as maps (B, C, h, w)."""
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (self.grid, self.grid))


def _unfit(visual: Any) -> str | None:
    """Return why a picture tower cannot be opened, None for one that can."""
    if visual is None:
        return "reads text only"
    if not isinstance(visual, VisionTransformer):
        return f"sees with a {type(visual).__name__}"
    if visual.attn_pool is not None:
        return "pools by attention, not by a class token"
    return "sees pictures that are not square" if len({*visual.image_size}) + len({*visual.grid_size}) > 2 else None


def random_vit(size: int, grid: int, width: int, layers: int, embed_dim: int) -> OpenViT:
    """Return a vision transformer of these sizes with random weights: for tests and benchmarks, and to be filled.

    `size` pixels and `grid` patches along a side; heads of 64 channels where they fit, QuickGELU, as OpenAI's.
    """
    heads = width // 64 if width % 64 == 0 else 1
    sizes = {"image_size": size, "patch_size": size // grid, "width": width, "layers": layers, "heads": heads}
    visual = VisionTransformer(**sizes, mlp_ratio=4.0, output_dim=embed_dim, act_layer=QuickGELU)
    return OpenViT(visual)
