"""The teacher of a CLIP loss and its judges look at the same pictures: who is convinced by what a generator learnt?

A CLIP that a generator was trained against is no witness of the outcome. Beside it stand a CLIP that never taught, and
the judge of attributes, which knows nothing of captions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from t2ilib.devices import CPU_BATCH
from t2ilib.encoders.encoder import PictureEncoder, TextEncoder
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import attribute_accuracy
from t2ilib.metrics.drawing import EvaluationSettings, paint
from t2ilib.metrics.judge import Judge
from t2ilib.metrics.r_precision import clip_score
from t2ilib.task import Painter

ATTRIBUTES = "attributes"  # what the judge's number is called


@dataclass(frozen=True)
class Referees:
    """Several CLIPs by their role, as "teacher" and "judge", and the judge of attributes."""

    clips: Mapping[str, PictureEncoder]
    judge: Judge

    def __post_init__(self) -> None:
        """Raise InputError for a role that has the name of the judge's number."""
        if ATTRIBUTES in self.clips:
            raise InputError(f"clips: the role {ATTRIBUTES} is the judge's; call it otherwise")

    @torch.no_grad()
    def look(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, float]:
        """Return how well pictures (N, 3, H, W) in [-1, 1] fit N captions: role -> CLIP score, and "attributes".

        CLIP score: 100 times the mean cosine, negative ones as 0. Attributes: the share of the mentioned ones that the
        pictures show.
        """
        if not pictures.is_floating_point():
            kind = str(pictures.dtype).removeprefix("torch.")
            raise InputError(f"pictures: are {kind}; give floating-point ones in [-1, 1] (t2ilib.pictures.to_float)")
        found = {}
        for role, clip in self.clips.items():
            parts = pictures.to(clip.device).split(CPU_BATCH)
            images = torch.cat([clip.encode_images(part) for part in parts])
            found[role] = clip_score(images.cpu().numpy(), clip.encode(captions).sentence.cpu().numpy())
        return found | {ATTRIBUTES: attribute_accuracy(self.judge, pictures, captions)["mentioned"]}

    def probe(self, captions: Sequence[str], reader: TextEncoder, seed: int = 0) -> Callable[[int, Painter], dict]:
        """Return a hook of the training loop: a picture per caption, read by `reader`, with the noise of `seed`."""
        return lambda step, system: self.look(drawn(system, captions, reader, seed), captions)


def drawn(painter: Painter, captions: Sequence[str], reader: TextEncoder, seed: int = 0) -> Tensor:
    """Return one picture per caption (N, 3, H, W) in [-1, 1]; the noise depends on the seed alone."""
    return torch.cat(list(paint(painter, list(captions), reader, EvaluationSettings(seed=seed))))
