"""Networks that turn pictures into features, as every metric sees them: the judge, a CLIP, any network, Inception.

An extractor is shown what a file would hold: `as_saved` rounds to 8 bits first. Its name and its resize belong to every
number made with it; features of another network, or of another resize, do not compare. The Inception network of 2015
lies in `inception.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from t2ilib.encoders.encoder import PictureEncoder
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.metrics.intake import as_saved
from t2ilib.metrics.judge import Judge

CLASSIFIED = "body"  # the attribute whose colours are the judge's classes


@dataclass(frozen=True)
class Seen:
    """What an extractor made of B pictures, on the CPU."""

    features: Tensor  # (B, F) float32
    probabilities: Tensor | None = None  # (B, C) float32, of a classifier's classes


class Extractor(Protocol):
    """A frozen network, with what a result says of it."""

    name: str  # network and weights: equal names give equal features
    resize: str  # a sentence: how pictures get the size that the network sees
    size: int  # F

    def __call__(self, pictures: Tensor) -> Seen:
        """Return what it sees in pictures (B, 3, H, W) in [-1, 1], of whatever size."""


def look(extractor: Extractor, pictures: Tensor) -> Seen:
    """Return what an extractor sees in checked pictures; InputError for features that are none."""
    with torch.no_grad():
        seen = extractor(pictures)
    if seen.features.shape != (len(pictures), extractor.size):
        told = f"{tuple(seen.features.shape)} features of {len(pictures)} pictures"
        raise InputError(f"{extractor.name}: {told}; it says that it gives {extractor.size} of each")
    if not seen.features.isfinite().all():
        raise InputError(f"{extractor.name}: some features are NaN or infinite; load its weights again")
    return seen


def protocol(extractor: Extractor) -> dict[str, str]:
    """Return what every result says of the extractor it was made with."""
    return {"extractor": extractor.name, "resize": extractor.resize}


class Custom:
    """Any network as an extractor, such as a small one in a test."""

    def __init__(self, network: Callable[[Tensor], Tensor | Seen], size: int, name: str, resize: str = "none"):
        """`network` maps pictures (B, 3, H, W), 8-bit values in [-1, 1], to features (B, size), or to what is seen."""
        self.network, self.size, self.name, self.resize = network, size, name, resize

    def __call__(self, pictures: Tensor) -> Seen:
        """Return what the network sees."""
        found = self.network(as_saved(pictures))
        if isinstance(found, Seen):
            return found
        return Seen(found.detach().float().cpu())


class JudgeExtractor:
    """The judge of the toy birds. Its features give the toy FD; its classes are the colours of the body.

    An Inception Score by it runs from 1 to the number of these colours.
    """

    def __init__(self, judge: Judge):
        """Look with `judge`, on its device."""
        self.judge, self.size = judge, judge.config.feature_size
        self.name, self.resize = judge.fingerprint, f"{judge.config.image_size} px, bicubic, antialiased"
        attributes = list(judge.config.attributes)
        self._head = judge.heads[attributes.index(CLASSIFIED)] if CLASSIFIED in attributes else None

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Seen:
        """Return the features before the heads, and the probabilities of the body's colours."""
        features = self.judge.features(as_saved(pictures))
        if self._head is None:
            return Seen(features)
        logits = self._head(features.to(self._head.weight.device))
        return Seen(features, logits.softmax(dim=1).cpu())


class ClipExtractor:
    """A CLIP's image features, not normalised. A Frechet distance of them is a "CLIP FD"."""

    def __init__(self, encoder: PictureEncoder):
        """Look with `encoder`, on its device."""
        self.encoder, self.size = encoder, encoder.sentence_dim
        self.name = f"{encoder.name}-{encoder.fingerprint[:12]}"
        self.resize = f"{encoder.image_size} px, bicubic, antialiased"

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Seen:
        """Return the embeddings."""
        return Seen(self.encoder.encode_images(as_saved(pictures.to(self.encoder.device))).float().cpu())


class ReleasedView:
    """A CLIP that is shown pictures as GALIP's released evaluation shows them; its captions are read as ever.

    That code maps [-1, 1] to [0, 1] twice, so that black is 0.5 before it is standardised, and takes the nearest pixel
    where it resizes. CLIP scores by that code are of this view, and do not compare with those of the correct one.
    """

    def __init__(self, encoder: PictureEncoder):
        """Look with `encoder`, on its device."""
        self.encoder, self.image_size, self.sentence_dim = encoder, encoder.image_size, encoder.sentence_dim
        self.word_dim, self.name = encoder.word_dim, f"{encoder.name}, released view"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.device

    @property
    def fingerprint(self) -> str:
        """The encoder's, and that its view is another."""
        return f"{self.encoder.fingerprint}+released"

    def encode(self, captions: Sequence[str]) -> Text:
        """Return the features of captions, the encoder's own."""
        return self.encoder.encode(captions)

    def unknown(self, caption: str) -> list[str]:
        """Return the words of `caption` that the encoder does not know."""
        return self.encoder.unknown(caption)

    def to(self, device: torch.device | str) -> "ReleasedView":
        """Return the same view on another device."""
        return ReleasedView(self.encoder.to(device))

    def encode_images(self, images: Tensor) -> Tensor:
        """Return embeddings (B, D) of pictures (B, 3, H, W) in [-1, 1], which the encoder gets in [0, 1]."""
        return self.encoder.encode_images(F.interpolate(images * 0.5 + 0.5, (self.image_size, self.image_size)))


VIEWS: dict[str, Callable[[PictureEncoder], PictureEncoder]] = {  # how a CLIP that scores is shown pictures
    "correct": lambda encoder: encoder,
    "released": ReleasedView,
}


class Shared:
    """An extractor that several metrics are shown the same batches by: it looks once at each."""

    def __init__(self, extractor: Extractor):
        """Look with `extractor`."""
        self.extractor = extractor
        self.name, self.resize, self.size = extractor.name, extractor.resize, extractor.size
        self._last: tuple[Tensor, int, Seen] | None = None  # kept, so that no other tensor can take its place

    def __call__(self, pictures: Tensor) -> Seen:
        """Return what the extractor saw, the last time where it is the same tensor, unchanged."""
        version = -1 if pictures.is_inference() else pictures._version  # inference tensors count no changes
        if version < 0 or self._last is None or self._last[0] is not pictures or self._last[1] != version:
            self._last = (pictures, version, self.extractor(pictures))
        return self._last[2]
