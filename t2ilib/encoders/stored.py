"""What config.json of a small CLIP may say: types and bounds, checked before anything is built from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from t2ilib.encoders.tokens import END, PAD, SPECIAL, split_words
from t2ilib.errors import InputError, one_line
from t2ilib.settings import SHARE, Range, check_ranges, read

SIZE, LAYERS = Range(least=1, most=65_536), Range(least=1, most=100)
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
        if odd := [word for word in self.vocabulary if split_words(word) != [word]]:
            raise InputError(f"vocabulary: {one_line(repr(odd[0]))} is no word that a caption could be split into")


def check_name(name: str) -> None:
    """Raise InputError for a name that no file could bear."""
    if not (0 < len(name) <= 100 and name.isprintable()):
        raise InputError(f"name = {name[:20]!r}: it enters file names; give 1 to 100 printable characters")


def check_stored(config: Mapping[str, Any], entries: int) -> None:
    """Raise InputError for a config.json that cannot be of a model.safetensors with so many `entries`."""
    found = read(Stored, config, "config")
    vision = found.model.vision_cfg.layers
    layers = found.model.text_cfg.layers + (vision if isinstance(vision, int) else sum(vision))
    if layers > entries:
        raise InputError(f"{layers} layers, but weights with {entries} entries")
