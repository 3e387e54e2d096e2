"""Who looks at painted pictures: a CLIP that taught nobody, the judge of attributes, and memory of the training set."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from threading import RLock

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from t2ilib import data
from t2ilib.assembly import load_encoder, reference_split
from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, parse
from t2ilib.devices import CPU_BATCH
from t2ilib.encoders import sees
from t2ilib.encoders.encoder import PictureEncoder
from t2ilib.errors import InputError, one_line, warn
from t2ilib.files import DATA
from t2ilib.metrics.diversity import diversity
from t2ilib.metrics.judge import Judge, load_judge
from t2ilib.metrics.r_precision import clip_scores
from t2ilib.pictures import to_float
from t2ilib.sampler import Sampler
from t2ilib.weights import save_tensors

MEMORY = DATA / "neighbours"  # where features of training pictures are kept
AT_ONCE = 32  # pictures that are looked at before others may compute
SPREAD = 500  # training pictures whose mean distance is the unit of diversity


@dataclass(frozen=True)
class Verdict:
    """What the judge sees of one attribute, beside what the caption says of it."""

    attribute: str
    shown: str
    said: str | None  # None: not mentioned

    @property
    def right(self) -> bool | None:
        """Whether the picture shows what the caption says; None where that says nothing."""
        return None if self.said is None else self.said == self.shown


@dataclass(frozen=True)
class Neighbour:
    """A training picture near to a painted one."""

    picture: np.ndarray  # (H, W, 3) uint8
    captions: tuple[str, ...]
    likeness: float  # cosine of features, -1 to 1


class Eyes:
    """All who look at the pictures of one system; each method takes pictures (N, H, W, 3) uint8."""

    def __init__(
        self,
        clip: PictureEncoder | None,
        judge: Judge | None,
        training: Callable[[], CaptionedImages],
        lock: AbstractContextManager | None = None,
    ):
        """Take who looks; `training` loads the training pictures when they are first asked for."""
        self.clip, self.judge, self._training, self._lock = clip, judge, training, lock or RLock()

    @torch.no_grad()
    def scores(self, pictures: np.ndarray, caption: str) -> np.ndarray | None:
        """Return the CLIP score of each picture (N,): 100 times the cosine with the caption; None without a CLIP."""
        if self.clip is None:
            return None
        with self._lock:
            texts = self.clip.encode([caption]).sentence.expand(len(pictures), -1).float().cpu().numpy()
            return clip_scores(self._directions(pictures).numpy(), texts)

    def verdicts(self, pictures: np.ndarray, caption: str) -> list[list[Verdict]]:
        """Return for each picture what the judge sees of every attribute; nothing where there is no judge."""
        if self.judge is None:
            return [[] for _ in pictures]
        said = parse(caption)
        with self._lock:
            seen = self.judge.predict(to_float(pictures)).tolist()
        names = list(ATTRIBUTES)
        rows = [{name: ATTRIBUTES[name][value] for name, value in zip(names, row, strict=True)} for row in seen]
        return [[Verdict(name, shown, said.get(name)) for name, shown in row.items()] for row in rows]

    def diversity(self, pictures: np.ndarray) -> float | None:
        """Return how much pictures of one caption differ: 0 not at all, 1 as training pictures.

        None for one picture, and where nobody looks. InputError where the training pictures are not on this machine.
        """
        if len(pictures) < 2 or (self.judge is None and self.clip is None):
            return None
        return diversity(self._features(pictures)[None].numpy(), self._spread.numpy())

    def nearest(self, pictures: np.ndarray, count: int = 4) -> list[list[Neighbour]]:
        """Return for each picture its nearest training pictures by the cosine of features, nearest first."""
        birds, memory = self.training, F.normalize(self._memory, dim=1)
        cosines = F.normalize(self._features(pictures), dim=1) @ memory.T
        likeness, rows = cosines.topk(min(count, len(memory)))

        def bird(row: int, like: float) -> Neighbour:
            return Neighbour(np.asarray(birds.images[row]), tuple(birds.captions[row]), like)

        return [list(map(bird, *own)) for own in zip(rows.tolist(), likeness.tolist(), strict=True)]

    @cached_property
    def training(self) -> CaptionedImages:
        """The pictures that the system was trained on; InputError where they are not on this machine."""
        return self._training()

    @cached_property
    def _spread(self) -> Tensor:
        """The features (M, F) of some training pictures."""
        return self._features(np.asarray(self.training.images[:SPREAD]))

    @cached_property
    def _memory(self) -> Tensor:
        """The features (M, F) of all training pictures, from the file that was written before where there is one."""
        birds, reader = self.training, self.judge or self.clip
        if reader is None:
            raise InputError("nearest pictures: nobody is there to compare them; name a judge in the recipe")
        told = json.dumps(
            [birds.source, birds.splits[:1].tolist(), birds.size, len(birds), reader.fingerprint], sort_keys=True
        )
        path = MEMORY / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.safetensors"
        try:
            kept = load_file(path)["features"]
            if kept.ndim == 2 and len(kept) == len(birds):
                return kept.float()
        except (OSError, SafetensorError, KeyError):
            pass  # not there yet, or damaged: made anew
        rows = range(0, len(birds), 256)
        features = torch.cat([self._features(np.asarray(birds.images[row : row + 256])) for row in rows])
        try:
            save_tensors(path, {"features": features.half()})
        except OSError as error:
            warn(
                f"{path}: cannot be written ({error.strerror or error}); the training pictures are read anew next time"
            )
        return features

    @torch.no_grad()
    def _features(self, pictures: np.ndarray) -> Tensor:
        found = []
        for first in range(0, len(pictures), AT_ONCE):
            part = pictures[first : first + AT_ONCE]
            with self._lock:
                found.append(self._directions(part) if self.judge is None else self.judge.features(to_float(part)))
            time.sleep(0.001)  # whoever waits to paint has its turn
        return torch.cat(found)

    def _directions(self, pictures: np.ndarray) -> Tensor:
        parts = to_float(pictures).split(CPU_BATCH)
        return torch.cat([self.clip.encode_images(part.to(self.clip.device)).float().cpu() for part in parts])


def eyes_of(sampler: Sampler, lock: AbstractContextManager | None = None) -> Eyes:
    """Return who looks at the pictures of a sampler: the judges that its recipe names."""
    recipe, device = sampler.recipe, sampler.device
    clip = load_encoder(recipe, "judge", sampler.folder)
    judge = load_judge(device=device) if recipe.data.source == "toy" else None

    def training() -> CaptionedImages:
        dataset = data.load(recipe.data.source, recipe.data.size, **recipe.data.options)
        return reference_split(dataset, recipe, recipe.data.split)

    return Eyes(clip.to(device) if sees(clip) else None, judge, training, lock)


def nobody(source: str) -> Eyes:
    """Return who looks at the pictures of weights without a recipe: nobody is known who did not teach them."""

    def training() -> CaptionedImages:
        raise InputError(f"{one_line(source, 100)}: released weights say neither their training pictures nor a judge")

    return Eyes(None, None, training)
