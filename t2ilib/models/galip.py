"""GALIP: a GAN on both sides of a frozen CLIP (Tao et al. 2023, https://arxiv.org/abs/2301.12959).

Figure 3: the discriminator never sees pixels. It reads what three blocks of CLIP's vision transformer say of a picture,
and learns only to collect and to judge that. The generator makes, of text and noise, a map that the same transformer
takes for a picture's patches, with prompts of text and noise between its blocks; what comes out, CLIP's idea of the
picture, is added to the map and drawn by DF-GAN's blocks.

Differences of ours from the released code: pictures reach CLIP as CLIP was trained to see them; `preprocessing:
released` squeezes them into [0.5, 1] and picks the nearest pixels, which the released weights need. Real pictures pass
through CLIP without a graph: no loss needs one. `generate` cuts pictures to [-1, 1]: the generator has no tanh.
Ours alone: `clip_generator`, `clip_discriminator` and `similarity` take the CLIP out again, place by place. Without it
in the discriminator DF-GAN's takes over; without it in the generator the map goes on as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from t2ilib import losses
from t2ilib.errors import InputError
from t2ilib.features import Batch, Fakes, Text
from t2ilib.models import dfgan
from t2ilib.models.layers import DeepFusion, FusionUpBlock, MatchingHead
from t2ilib.models.vit import OpenViT, random_vit
from t2ilib.settings import BATCH, POSITIVE, SHARE, WEIGHT, WIDTH, Range, check_ranges
from t2ilib.task import Frozen, System

PREPROCESSING = ("correct", "released")
DEPTH = Range(least=1, most=200)  # of a CLIP's blocks


@dataclass(frozen=True)
class GALIPConfig:
    """Hyper-parameters; the defaults are the paper's, but for the preprocessing. The CLIP decides the `clip_` sizes."""

    image_size: Annotated[int, Range(least=8, most=1024)] = 224  # pixels: the grid, doubled up to the next power of
    # two, then on by powers of two; the last step goes where it must: 7, 8, 16, ..., 128, 224
    noise_dim: Annotated[int, WIDTH] = 100  # Z
    embedding_dim: Annotated[int, WIDTH] = 512  # D, CLIP's sentence feature, before normalisation
    clip_size: Annotated[int, WIDTH] = 224  # pixels that the CLIP sees
    clip_grid: Annotated[int, WIDTH] = 7  # patches along a side of them
    clip_width: Annotated[int, WIDTH] = 768  # channels C of its blocks
    clip_layers: Annotated[int, DEPTH] = 12  # its blocks
    taps: Annotated[tuple[int, ...], DEPTH] = (2, 5, 9)  # blocks after which the discriminator reads, from 1
    prompts: Annotated[tuple[int, ...], DEPTH] = (2, 3, 4, 5, 6, 7, 8, 9)  # blocks that see a prompt; () for none
    preprocessing: str = "correct"  # "released": as the released code shows pictures to the CLIP
    nf: Annotated[int, WIDTH] = 64  # channels of the generator at full size, doubled downwards up to 8 nf
    code_channels: Annotated[int, WIDTH] = 64  # channels of the map that text and noise become
    bridge: Annotated[float, Range(least=0, most=100)] = 0.1  # share of the transformer's answer that is added to it
    discriminator_channels: Annotated[int, WIDTH] = 512  # after the collecting blocks
    head_channels: Annotated[int, WIDTH] = 128  # between the head's two convolutions
    similarity: Annotated[float, WEIGHT] = 4.0  # weight of the cosine of picture and sentence in the generator's loss
    clip_generator: bool = True  # the transformer in the generator
    clip_discriminator: bool = True  # the transformer in front of the discriminator; else DF-GAN's on pixels
    lr: Annotated[float, POSITIVE] = 1e-4  # Adam, generator
    discriminator_lr: Annotated[float, POSITIVE] = 4e-4  # Adam, discriminator and head
    betas: Annotated[tuple[float, float], SHARE] = (0.0, 0.9)  # Adam
    batch_size: Annotated[int, BATCH] = 64  # of each process; the paper had eight
    ema: Annotated[float, SHARE] = 0.0  # decay per step of the averaged generator; 0: none
    penalty: Annotated[float, WEIGHT] = 2.0  # k of the matching-aware penalty; 0 switches it off
    penalty_power: Annotated[float, Range(least=2, most=100)] = 6.0  # p

    def __post_init__(self) -> None:
        """Raise InputError for sizes that the networks cannot have."""
        check_ranges(self, "model.")
        if self.clip_size < self.clip_grid or self.clip_size // (self.clip_size // self.clip_grid) != self.clip_grid:
            raise InputError(
                f"model.clip_grid = {self.clip_grid}: pictures of model.clip_size = {self.clip_size} pixels cannot be "
                "cut into so many patches a side; drop both, the CLIP decides them"
            )
        if self.image_size <= self.clip_grid:
            raise InputError(
                f"model.image_size = {self.image_size}: the generator starts from the CLIP's {self.clip_grid} x "
                f"{self.clip_grid} patches and only enlarges; choose more pixels"
            )
        for name in ("taps", "prompts"):
            blocks = getattr(self, name)
            if list(blocks) != sorted(set(blocks)) or max(blocks, default=0) > self.clip_layers:
                raise InputError(
                    f"model.{name} = {list(blocks)}: must rise, and name blocks of the CLIP, which has "
                    f"{self.clip_layers}"
                )
        if not self.taps:
            raise InputError("model.taps: there are none; name at least one block of the CLIP")
        if self.preprocessing not in PREPROCESSING:
            raise InputError(f"model.preprocessing: {self.preprocessing!r} is not one of {', '.join(PREPROCESSING)}")
        if not self.clip_discriminator:
            try:
                self.pixels()
            except InputError as error:
                raise InputError(
                    f"model.clip_discriminator: false takes DF-GAN's discriminator: {error}; choose such a data.size, "
                    "or leave the CLIP in"
                ) from None

    @classmethod
    def tiny(cls, **changes: Any) -> "GALIPConfig":
        """Return sizes for tests: 32 pixels, a CLIP of three narrow blocks."""
        sizes = {"image_size": 32, "noise_dim": 8, "embedding_dim": 16, "nf": 4, "code_channels": 8, "batch_size": 4}
        clip = {"clip_size": 32, "clip_grid": 4, "clip_width": 16, "clip_layers": 3, "taps": (1, 2), "prompts": (2, 3)}
        return cls(**{**sizes, **clip, "discriminator_channels": 8, "head_channels": 8, **changes})

    @property
    def sizes(self) -> list[int]:
        """Sides of the generator's maps, from the CLIP's grid to the picture: 7, 8, 16, 32, 64, 128, 224."""
        powers = [2**k for k in range(11) if self.clip_grid < 2**k < self.image_size]
        return [self.clip_grid, *powers, self.image_size]

    @property
    def channels(self) -> list[int]:
        """Channels of these maps: 8nf, ..., 8nf, 4nf, 2nf, nf."""
        return [self.nf * min(2**halving, 8) for halving in range(len(self.sizes))][::-1]

    def pixels(self) -> "dfgan.DFGANConfig":
        """Return the config of DF-GAN's discriminator, which stands in where that has no CLIP."""
        return dfgan.DFGANConfig(image_size=self.image_size, embedding_dim=self.embedding_dim, nf=self.nf)


class FusionBlock(nn.Module):
    """x + a 3x3 convolution to half the channels and one back, text fused in after each (figure 4)."""

    def __init__(self, channels: int, condition_dim: int):
        super().__init__()
        half = max(1, channels // 2)
        pairs = ((channels, half), (half, channels))
        self.convolutions = nn.ModuleList(nn.Conv2d(*pair, 3, padding=1) for pair in pairs)
        self.fusions = nn.ModuleList(DeepFusion(condition_dim, out) for _, out in pairs)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return maps (B, C, h, w) for maps of the same shape and conditions (B, K)."""
        y = x
        for convolution, fuse in zip(self.convolutions, self.fusions, strict=True):
            y = fuse(convolution(y), condition)
        return x + y


class Bridge(nn.Module):
    """Bridge feature predictor and prompts: from a map of noise to a map that CLIP's transformer has looked at.

    f = conv(blocks(noise, condition));  output = conv(f + 0.1 ViT(f, prompts(condition))). Section 3.3, figure 4.
    """

    def __init__(self, config: GALIPConfig, eye: Frozen):
        super().__init__()
        width, condition_dim = config.clip_width, config.noise_dim + config.embedding_dim
        self.share, self.prompts_at, self.eye = config.bridge, config.prompts, eye
        self.blocks = nn.ModuleList(FusionBlock(config.code_channels, condition_dim) for _ in range(4))
        self.widen = nn.Conv2d(config.code_channels, width, 5, padding=2)
        self.narrow = nn.Conv2d(width, config.channels[0], 5, padding=2)
        uses = config.clip_generator and len(config.prompts) > 0
        self.prompts = nn.Linear(condition_dim, len(config.prompts) * width) if uses else None
        self.looks = config.clip_generator

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return maps (B, C', h, w) for maps of noise (B, C, h, w) and conditions (B, K)."""
        for block in self.blocks:
            x = block(x, condition)
        predicted = self.widen(x)  # (B, C_clip, h, w)
        if not self.looks:
            return self.narrow(predicted)
        prompts = self.prompts(condition).unflatten(1, (len(self.prompts_at), -1)) if self.prompts else None
        seen = self.eye.call("prompted", predicted, prompts, self.prompts_at if self.prompts else ())
        return self.narrow(predicted + self.share * seen)


class Generator(nn.Module):
    """Noise (B, Z) and sentence features (B, D) to pictures (B, 3, H, H) about [-1, 1], without a bound."""

    def __init__(self, config: GALIPConfig, eye: Frozen):
        super().__init__()
        condition_dim = config.noise_dim + config.embedding_dim
        self.grid, self.sizes = config.clip_grid, config.sizes[1:]
        self.start = nn.Linear(config.noise_dim, config.code_channels * self.grid**2)
        self.bridge = Bridge(config, eye)
        self.blocks = nn.ModuleList(FusionUpBlock(*pair, condition_dim) for pair in pairwise(config.channels))
        self.picture = nn.Sequential(nn.LeakyReLU(0.2), nn.Conv2d(config.nf, 3, 3, padding=1))

    def forward(self, noise: Tensor, sentence: Tensor) -> Tensor:
        """Return pictures; the condition of every block and of the prompts is noise and sentence side by side."""
        condition = torch.cat([noise, sentence], 1)  # (B, Z + D)
        x = self.start(noise).unflatten(1, (-1, self.grid, self.grid))  # (B, 64, 7, 7)
        x = self.bridge(x, condition)  # (B, 8nf, 7, 7)
        for block, size in zip(self.blocks, self.sizes, strict=True):
            x = block(x, condition, size)  # 8x8, 16x16, ... HxH
        return self.picture(x)


class CollectingBlock(nn.Module):
    """x + gain * residual(x) + share * next: one more of CLIP's maps is gathered in (figure 3, CLIP-FE)."""

    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False),
            nn.LeakyReLU(0.2),
        )
        self.skip = nn.Conv2d(channels_in, channels_out, 1)  # built always, as released; used where widths differ
        self.projects = channels_in != channels_out
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps (B, C', h, w) for maps (B, C, h, w)."""
        return (self.skip(x) if self.projects else x) + self.gain * self.residual(x)


class GatheringBlock(CollectingBlock):
    """A collecting block that adds the next tapped map, by a learned share that starts at zero."""

    def __init__(self, channels: int):
        super().__init__(channels, channels)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, more: Tensor) -> Tensor:
        """Return maps (B, C, h, w) for two of that shape."""
        return super().forward(x) + self.share * more


class Discriminator(nn.Module):
    """CLIP's maps (B, taps, C, h, w) to features (B, C', h, w); its `head` turns those and a sentence into a logit."""

    def __init__(self, config: GALIPConfig):
        super().__init__()
        width, out, grid = config.clip_width, config.discriminator_channels, config.clip_grid
        self.blocks = nn.ModuleList(GatheringBlock(width) for _ in config.taps[1:])
        self.last = CollectingBlock(width, out)
        first = min(4, grid)
        kernels = (first, grid - first + 1)  # 7x7 to 4x4, then to one logit
        self.head = MatchingHead(out, config.embedding_dim, config.head_channels, kernels, padding=0)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, before any text."""
        x = features[:, 0]
        for block, more in zip(self.blocks, features.unbind(1)[1:], strict=True):
            x = block(x, more)
        return self.last(x)


class GALIP(System):
    """GALIP: see `GALIPConfig`. Without a clip its transformer is one of the config's sizes, with random weights."""

    Config = GALIPConfig
    encoders = ("text", "clip")

    def __init__(self, config: GALIPConfig | None = None, encoders: Mapping[str, Any] | None = None):
        super().__init__(config or GALIPConfig())
        config, clip = self.config, (encoders or {}).get("clip")
        sizes = (config.clip_size, config.clip_grid, config.clip_width, config.clip_layers, config.embedding_dim)
        eye = random_vit(*sizes) if clip is None else OpenViT.of(clip)
        if (eye.size, eye.grid, eye.width, eye.layers) != sizes[:4]:
            raise InputError("model: clip_size, clip_grid, clip_width, clip_layers are not this CLIP's; drop them")
        self.eye = Frozen(eye)
        self.generator = Generator(config, self.eye)
        self.discriminator = (
            Discriminator(config) if config.clip_discriminator else dfgan.Discriminator(config.pixels())
        )

    @classmethod
    def configure(cls, values: Mapping[str, Any]) -> GALIPConfig:
        """Return the config; a CLIP that nobody has seen yet counts as deep as taps and prompts ask for."""
        lists = [each for each in (values.get("taps"), values.get("prompts")) if isinstance(each, list | tuple)]
        asked = [block for each in lists for block in each if type(block) is int and DEPTH.holds(block)]
        return super().configure({"clip_layers": max([GALIPConfig.clip_layers, *asked]), **values})

    @classmethod
    def build(cls, values: Mapping[str, Any], encoders: Mapping[str, Any], dataset: Any = None) -> "GALIP":
        """Return the system; InputError where its cosine would compare two encoders that never met."""
        system, (text, clip) = super().build(values, encoders, dataset), map(encoders.get, ("text", "clip"))
        if system.config.similarity and text and clip and text is not clip and text.fingerprint != clip.fingerprint:
            raise InputError(
                f"model.similarity: compares the pictures of {clip.name} with the sentences of {text.name}; take one "
                "CLIP for both roles, or set it to 0"
            )
        return system

    @classmethod
    def sizes(cls, encoders: Mapping[str, Any]) -> dict[str, int]:
        """Return the sizes that the encoders decide; InputError for a CLIP that is no vision transformer."""
        found = super().sizes(encoders)
        if "clip" not in encoders:
            return found
        eye = OpenViT.of(encoders["clip"])
        if (read := found.get("embedding_dim")) not in (None, seen := encoders["clip"].sentence_dim):
            raise InputError(f"encoders: text gives {read} numbers, clip {seen}; GALIP compares them, so take one CLIP")
        sizes = {"size": eye.size, "grid": eye.grid, "width": eye.width, "layers": eye.layers}
        return found | {"embedding_dim": seen} | {f"clip_{name}": size for name, size in sizes.items()}

    @property
    def head(self) -> nn.Module:
        """The discriminator's features and sentence features (B, D) to logits (B,)."""
        return self.discriminator.head

    def image_features(self, image: Tensor, embedded: bool = True) -> tuple[Tensor, Tensor | None]:
        """Return CLIP's maps (B, taps, C, h, w) and embedding (B, D) of pictures (B, 3, H, W) in [-1, 1].

        Without the CLIP in the discriminator the former are the pictures. The embedding is None where it was not asked
        for, or the CLIP has lost its last layers (a released file's).
        """
        config = self.config
        taps = config.taps if config.clip_discriminator else ()
        if not taps and not embedded:
            return image, None
        shown = self.eye.call("shown", image, config.preprocessing == "released")
        maps, embedding = self.eye(shown, taps, embedded)
        return image if maps is None else maps, embedding

    def fakes(self, text: Text, noise: Tensor) -> Fakes:
        """Return one picture per text, (B, 3, H, H)."""
        return Fakes([self.generator(noise, text.sentence)])

    def prepare(self, batch: Batch, roles: tuple[str, ...]) -> Fakes:
        """Paint the round's fakes, and look at them once, for both losses."""
        fakes = super().prepare(batch, roles)
        with torch.set_grad_enabled("generator" in roles):
            features, embedding = self.image_features(fakes.last, embedded=self.config.similarity > 0)
        seen = {"features": features} | ({} if embedding is None else {"embedding": embedding})
        return replace(fakes, more=fakes.more | seen)

    def score(self, pictures: Tensor, text: Text) -> Tensor:
        """Return the discriminator's logits (B,) of pictures beside texts."""
        return self.head(self.discriminator(self.image_features(pictures, embedded=False)[0]), text.sentence)

    @torch.no_grad()
    def generate(self, text: Text, noise: Tensor) -> Tensor:
        """Return pictures (B, 3, H, W), cut to [-1, 1], for the features of B captions and noise (B, Z)."""
        return super().generate(text, noise).clamp(-1, 1)

    def discriminator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `real`, `fake`, `mismatched`, `penalty` (equation 1): minimised over D and its head.

        The penalty is taken at CLIP's maps of real pictures and their sentences, not at pixels.
        """
        config, sentence = self.config, batch.text.sentence
        with torch.no_grad():
            seen, _ = self.image_features(batch.images, embedded=False)

        def score(seen: Tensor, sentence: Tensor) -> tuple[Tensor, Tensor]:
            features = self.discriminator(seen)
            return self.head(features, sentence), features

        penalty = {}
        if config.penalty:
            value, real, features = losses.matching_aware_penalty(
                score, seen, sentence, config.penalty, config.penalty_power
            )
            penalty = {"penalty": value}
        else:
            real, features = score(seen, sentence)
        fake = self.head(self.discriminator(fakes.more["features"]), sentence)
        mismatched = self.head(features, sentence.roll(1, 0))  # the released code rolls sentences, DF-GAN's features
        return losses.hinge_discriminator(real, fake, mismatched) | penalty

    def generator_loss(self, batch: Batch, fakes: Fakes) -> dict[str, Tensor]:
        """Return the terms `adversarial` and `similarity` (equation 2): minimised over G.

        InputError where the CLIP has no embedding to compare with.
        """
        sentence = batch.text.sentence
        logits = self.head(self.discriminator(fakes.more["features"]), sentence)
        terms = {"adversarial": losses.hinge_generator(logits)}
        if self.config.similarity:
            if "embedding" not in fakes.more:
                raise InputError(
                    "model.similarity: the CLIP inside has no last layers, as in a released file; load that with clip="
                )
            cosine = F.cosine_similarity(fakes.more["embedding"].float(), sentence.float(), dim=1)
            terms["similarity"] = -self.config.similarity * cosine.mean()
        return terms
