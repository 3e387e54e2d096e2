"""What a text encoder is, and how the captions of a whole dataset are encoded once and kept on disk."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders.vocabulary import remarks
from t2ilib.errors import InputError, one_line, warn
from t2ilib.features import Text
from t2ilib.weights import digest, save_tensors


@dataclass(frozen=True)
class CaptionFeatures:
    """The features of all captions of a dataset: picture i owns rows offsets[i]:offsets[i + 1].

    Without `offsets`, every picture has one caption.
    """

    sentence: Tensor  # (M, D)
    words: Tensor | None = None  # (M, T, Dw)
    mask: Tensor | None = None  # (M, T) bool, True = padding
    offsets: Tensor | None = None  # (N + 1,) int64

    def __post_init__(self) -> None:
        """Fill in the offsets, or check that they fit."""
        rows = len(self.sentence)
        offsets = torch.arange(rows + 1) if self.offsets is None else torch.as_tensor(self.offsets, dtype=torch.int64)
        if int(offsets[0]) != 0 or int(offsets[-1]) != rows or bool((offsets.diff() < 1).any()):
            raise InputError(f"offsets: they must rise from 0 to {rows} (captions), by 1 or more per picture")
        object.__setattr__(self, "offsets", offsets)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.offsets) - 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields that are there."""
        return {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}


class TextEncoder(Protocol):
    """A frozen network that turns captions into features, and all that is asked of one."""

    name: str  # enters file names and reports
    sentence_dim: int  # D, length of a sentence feature
    word_dim: int | None  # Dw, length of a word feature; None: it gives none
    device: torch.device  # where the weights are

    @property
    def fingerprint(self) -> str:
        """Hexadecimal digest of configuration and weights: equal digests give equal features."""

    def encode(self, captions: Sequence[str]) -> Text:
        """Return the features of B captions, on the encoder's device."""

    def unknown(self, caption: str) -> list[str]:
        """Return the words of `caption` that it does not know."""

    def to(self, device: torch.device | str) -> "TextEncoder":
        """Return the encoder on another device."""


class PictureEncoder(TextEncoder, Protocol):
    """An encoder that sees, too: a CLIP."""

    image_size: int  # pixels, to which it resizes what it is shown

    def encode_images(self, images: Tensor) -> Tensor:
        """Return embeddings (B, D), not normalised, of pictures (B, 3, H, W) in [-1, 1]; differentiable."""


def sees(encoder: TextEncoder | None) -> bool:
    """Say whether an encoder is a `PictureEncoder`."""
    return hasattr(encoder, "encode_images")


def encode_dataset(
    encoder: TextEncoder,
    dataset: CaptionedImages,
    cache_folder: str | Path | None = None,
    batch_size: int = 256,
    words: bool = False,
) -> CaptionFeatures:
    """Encode every caption of `dataset`, each distinct text once; the result lies on the CPU.

    With `cache_folder` the distinct texts' features are kept in a file named after the encoder's fingerprint and the
    captions; a damaged file is written anew. `words=True` keeps word features too, M * T * Dw * 4 bytes of them.
    """
    distinct = list(dict.fromkeys(chain.from_iterable(dataset.captions)))
    row_of = {caption: row for row, caption in enumerate(distinct)}
    rows = torch.tensor([row_of[caption] for captions in dataset.captions for caption in captions], dtype=torch.int64)
    counts = torch.tensor([0, *map(len, dataset.captions)])
    features = _cached(encoder, distinct, cache_folder, batch_size, words)
    expanded = {name: tensor[rows] for name, tensor in features.tensors().items()}
    return CaptionFeatures(offsets=counts.cumsum(0), **expanded)


def encode_all(encoder: TextEncoder, captions: Sequence[str], batch_size: int = 256, words: bool = False) -> Text:
    """Encode any number of captions in batches; words are cut to the longest caption. The result lies on the CPU.

    Warns, once per kind, of captions that the encoder cannot read.
    """
    if isinstance(captions, str):
        raise InputError(f"captions = {one_line(repr(captions))}: give a list of captions")
    for line in remarks(encoder, captions):
        warn(line)
    return _encode(encoder, captions, batch_size, words)


def _encode(encoder: TextEncoder, captions: Sequence[str], batch_size: int, words: bool) -> Text:
    if not captions:
        raise InputError("captions: there are none to encode")
    batches = [encoder.encode(captions[i : i + batch_size]).to("cpu") for i in range(0, len(captions), batch_size)]
    sentence = torch.cat([batch.sentence for batch in batches])
    if not words:
        return Text(sentence)
    if any(batch.words is None for batch in batches):
        raise InputError(f"{encoder.name}: this encoder has no word features; ask for words=False")
    mask = torch.cat([batch.mask for batch in batches])
    longest = int((~mask).sum(1).max())
    return Text(sentence, torch.cat([batch.words[:, :longest] for batch in batches]), mask[:, :longest])


def _cached(
    encoder: TextEncoder, captions: list[str], cache_folder: str | Path | None, batch_size: int, words: bool
) -> Text:
    """Return the features from the cache, or compute them and fill it."""
    if cache_folder is None:
        return _encode(encoder, captions, batch_size, words)
    split = [] if all(map(str.isascii, captions)) else ["NFC"]  # other words than those of older files
    texts = hashlib.sha256(json.dumps([captions, words, *split]).encode()).hexdigest()
    name = re.sub(r"[^\w.-]+", "-", encoder.name)
    path = Path(cache_folder) / f"{name}-{encoder.fingerprint[:16]}-{texts[:16]}.safetensors"
    features = _read(path)
    if features is None or len(features.sentence) != len(captions):
        features = _encode(encoder, captions, batch_size, words)
        _write(path, features)
    return features


def _write(path: Path, features: Text) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in features.tensors().items()}
    save_tensors(path, tensors, {"sha256": digest(tensors)})


def _read(path: Path) -> Text | None:
    """Return what the cache file holds, or None where it is absent or damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a mapping)
            expected = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None
    return Text(**tensors) if expected == digest(tensors) else None
