"""What config.json of a small CLIP may say: types and bounds, checked before anything is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ilib.encoders.tokens import END, PAD, SPECIAL, split_words
from t2ilib.errors import InputError, one_line
from t2ilib.settings import SHARE, Range, check_ranges, read

SIZE, LAYERS = Range(least=1, most=65_536), Range(least=1, most=100)
LONGEST = {"stem": 12, "vocabulary": 65_536}  # entries; each of the stem halves a picture of 4096 pixels at most
POOLING = {"pool_type": "eos", "eos_id": END, "pad_id": PAD}  # how the one tokenizer of such a CLIP ends its captions


@dataclass(frozen=True)
class Vision:
    """The picture tower, as open_clip takes it."""

    image_size: Annotated[int, Range(least=1, most=4096)]
    patch_size: Annotated[int, Range(least=1, most=4096)]
    width: Annotated[int, SIZE]
    layers: Annotated[int | tuple[int, int, int, int], LAYERS]
    head_width: Annotated[int, SIZE]
    patch_dropout: Annotated[float, SHARE] = 0.0

    def __post_init__(self) -> None:
        check_ranges(self, "model.vision_cfg.")


@dataclass(frozen=True)
class TextTower:
    """The text tower, as open_clip takes it."""

    context_length: Annotated[int, Range(least=3, most=10_000)]
    vocab_size: int
    width: Annotated[int, SIZE]
    layers: Annotated[int, LAYERS]
    heads: Annotated[int, SIZE]
    pool_type: str
    eos_id: int
    pad_id: int

    def __post_init__(self) -> None:
        check_ranges(self, "model.text_cfg.")
        for name, value in POOLING.items():
            if (found := getattr(self, name)) != value:
                raise InputError(f"model.text_cfg.{name} = {one_line(repr(found))}: must be {value!r}")


@dataclass(frozen=True)
class Networks:
    """Both towers."""

    embed_dim: Annotated[int, SIZE]
    vision_cfg: Vision
    text_cfg: TextTower

    def __post_init__(self) -> None:
        check_ranges(self, "model.")


@dataclass(frozen=True)
class Stored:
    """All of config.json."""

    format: str
    version: int
    name: str
    model: Networks
    mean: tuple[float, float, float]
    std: Annotated[tuple[float, float, float], Range(above=0)]
    vocabulary: tuple[str, ...]
    stem: Annotated[tuple[int, ...], SIZE] = ()
    training: dict[str, Any] = field(default_factory=dict)
    started_from: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, "")
        check_name(self.name)
        declared, listed = self.model.text_cfg.vocab_size, len(SPECIAL) + len(self.vocabulary)
        if declared != listed:
            raise InputError(f"model.text_cfg.vocab_size = {declared}, but {listed} are listed")
        vision = self.model.vision_cfg
        check_stem(self.stem, vision.layers, vision.patch_size, vision.image_size, "")
        _check_heads(self.model)
        if odd := [word for word in self.vocabulary if split_words(word) != [word]]:
            raise InputError(f"vocabulary: {one_line(repr(odd[0]))} is no word that a caption could be split into")


def check_name(name: str) -> None:
    """Raise InputError for a name that no file could bear."""
    if not (0 < len(name) <= 100 and name.isprintable()):
        raise InputError(f"name = {name[:20]!r}: it enters file names; give 1 to 100 printable characters")


def check_stem(stem: Sequence[int], layers: int | Sequence[int], patch_size: int, image_size: int, where: str) -> None:
    """Raise InputError, naming `where` and the key, for stem and patches that fit not each other or the picture."""
    told = f"{where}stem = {one_line(stem)}"
    if len(stem) > LONGEST["stem"]:
        raise InputError(f"{told}: {len(stem):,} halvings of the picture; {LONGEST['stem']} at most")
    if stem and not (isinstance(layers, int) and 2 ** len(stem) == patch_size):
        raise InputError(f"{told}: it belongs to a transformer with patch_size {2 ** len(stem)}")
    if stem and image_size % patch_size:
        raise InputError(f"{told}: a picture of {image_size} pixels is no number of patches of {patch_size}")
    if isinstance(layers, int) and patch_size > image_size:
        raise InputError(f"{where}patch_size = {patch_size}: larger than the picture, of {image_size} pixels")


def _check_heads(model: Networks) -> None:
    """Raise InputError where attention cannot share a tower's channels among its heads."""
    vision, text = model.vision_cfg, model.text_cfg
    if text.width % text.heads:
        raise InputError(f"model.text_cfg.heads = {text.heads}: they must share {text.width} channels evenly")
    channels = vision.width * (1 if isinstance(vision.layers, int) else 32)  # of a ResNet's last stage
    if vision.head_width > channels or channels % (channels // vision.head_width):
        told = f"model.vision_cfg.head_width = {vision.head_width}"
        raise InputError(f"{told}: its heads must share {channels} channels evenly")


def check_stored(config: Mapping[str, Any], entries: int) -> None:
    """Raise InputError for a config.json that cannot be of a model.safetensors with so many `entries`."""
    for key, most in LONGEST.items():  # before each entry is looked at
        if isinstance(config.get(key), list) and len(config[key]) > most:
            raise InputError(f"{key}: {len(config[key]):,} entries; {most:,} at most")
    found = read(Stored, config, "config")
    vision = found.model.vision_cfg.layers
    layers = found.model.text_cfg.layers + (vision if isinstance(vision, int) else sum(vision))
    if layers > entries:
        raise InputError(f"{layers} layers, but weights with {entries} entries")
