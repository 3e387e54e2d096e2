"""What judge and CLIP see of a stream of pictures, and what its numbers are measured against."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from t2ilib.data.toy import parse
from t2ilib.encoders.encoder import PictureEncoder, TextEncoder
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import accuracy_of
from t2ilib.metrics.diversity import diversities
from t2ilib.metrics.drawing import ALONE, EvaluationSettings, Team, parts_of, tidied
from t2ilib.metrics.frechet import frechet_from_moments, moments
from t2ilib.metrics.intervals import GROUPS, bootstrapped, interval, jackknifed
from t2ilib.metrics.judge import Judge
from t2ilib.metrics.r_precision import clip_chance, clip_scores, r_precision

SPREAD = 2000  # real pictures, at most, whose mean distance is the unit of the diversity


class Look:
    """What judge and CLIP see in a stream of pictures: features and attributes, not the pictures."""

    def __init__(
        self, judge: Judge | None, encoder: PictureEncoder | None, pictures: Iterable[Tensor], team: Team = ALONE
    ):
        """Look at all pictures, batches (B, 3, H, W) in [-1, 1]; of a team each process at its share."""
        self.judge, self.encoder = judge, encoder
        self.features: list[Tensor] = []  # by the judge, (B, F) each, on the CPU
        self.attributes: list[Tensor] = []  # value indices by the judge, (B, A) each
        self.embeddings: list[Tensor] = []  # by the CLIP, (B, D) each
        for batch in tidied(pictures):
            self._update(batch)
        self.features, self.attributes, self.embeddings = map(
            team.gathered, (self.features, self.attributes, self.embeddings)
        )

    @torch.no_grad()
    def _update(self, pictures: Tensor) -> None:
        if not pictures.isfinite().all():
            raise InputError(
                "pictures: some are NaN or infinite; take another checkpoint, or look at the picture files"
            )
        if self.encoder is not None:
            self.embeddings.append(self.encoder.encode_images(pictures.to(self.encoder.device)).float().cpu())
        if self.judge is not None:
            features, attributes = self.judge.read(pictures)
            self.features.append(features)
            self.attributes.append(attributes)

    def vectors(self) -> np.ndarray:
        """Return the judge's features, or the CLIP's where there is no judge: (N, F)."""
        return torch.cat(self.embeddings if self.judge is None else self.features).numpy()


def features_by(
    readers: tuple[Judge | None, PictureEncoder | None], pictures: Iterable[Tensor], team: Team = ALONE
) -> np.ndarray:
    """Return the features (N, F) of pictures, by the judge; by the CLIP where there is none."""
    judge, encoder = readers
    return Look(judge, None if judge else encoder, pictures, team).vectors()


class Ruler:
    """All that the pictures of one evaluation are measured against, whoever made them."""

    def __init__(
        self,
        readers: tuple[Judge | None, PictureEncoder | None],
        captions: list[str],
        reference: np.ndarray,
        settings: EvaluationSettings,
        team: Team = ALONE,
    ):
        """Read the captions; `reference` holds the features (N, F) of all real pictures, as `features_by` returns."""
        self.judge, self.encoder = readers
        self.team = team
        self.captions, self.settings = captions, settings
        self.mentioned = [parse(caption) for caption in captions]
        self.texts = _sentences(self.encoder, captions, settings)
        self.moments = _moments(reference)
        self.spread = reference[np.random.default_rng(settings.seed).permutation(len(reference))[:SPREAD]]

    def measure(
        self,
        pictures: Iterable[Tensor],
        several: Iterable[Tensor] | None = None,
        crowd: np.ndarray | None = None,
        against: np.ndarray | None = None,
    ) -> dict:
        """Return the numbers of one painter, each None where there is nobody to see it.

        `pictures`: one per caption; `several`: `per_caption` of each of the first captions, for the diversity;
        `crowd`: features (N, F) whose distribution is compared with the reference, by default those of `pictures`, or
        with that of features `against` (M, F).
        """
        look = Look(self.judge, self.encoder, pictures, self.team)
        found: dict = {"attribute_accuracy": None, "r_precision": None, "clip_score": None}
        found |= {"intervals": {}, "chance": {}}
        if self.judge is not None:
            values = torch.cat(look.attributes)
            found["attribute_accuracy"] = accuracy_of(values, self.mentioned, self.judge.config.attributes)
        if self.encoder is not None:
            images = torch.cat(look.embeddings).double().numpy()
            scores = clip_scores(images, self.texts)
            found["clip_score"], found["intervals"]["clip_score"] = float(scores.mean()), interval(scores)
            if (guessed := clip_chance(images, self.texts, self.captions)) is not None:
                found["chance"]["clip_score"] = guessed
            if len(set(self.captions)) >= self.settings.candidates:
                rivals = self.settings.candidates, self.settings.seed
                found["r_precision"] = r_precision(images, self.texts, *rivals, groups=self.captions)
        name = "clip_fd" if self.judge is None else "toy_fd"
        compared = self.moments if against is None else _moments(against)
        found[name], found["intervals"][name] = _distance(look.vectors() if crowd is None else crowd, compared)
        if several is not None:
            features = self.features(several)
            features = features.reshape(-1, self.settings.per_caption, features.shape[1])
            varied = diversities(features, self.spread)
            found["diversity"], found["intervals"]["diversity"] = float(varied.mean()), bootstrapped(varied)
        return found

    def features(self, pictures: Iterable[Tensor]) -> np.ndarray:
        """Return the features (N, F) of pictures, by the judge; by the CLIP where there is none."""
        return features_by((self.judge, self.encoder), pictures, self.team)


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return mean and covariance of features (N, F); None for too few."""
    return moments(features) if len(features) > features.shape[1] else None


def _distance(
    features: np.ndarray, reference: tuple[np.ndarray, np.ndarray] | None
) -> tuple[float | None, list[float] | None]:
    """Return the Frechet distance of features (N, F) to mean and covariance, and its interval; None for too few."""
    count, size = features.shape
    if reference is None or count <= size:
        return None, None

    def distance(rows: np.ndarray) -> float:
        return frechet_from_moments(*moments(features[rows]), *reference)

    value = distance(np.arange(count))
    enough = count - -(-count // GROUPS) > size  # also without one of the jackknife's groups
    return value, jackknifed(value, distance, count) if enough else None


def _sentences(encoder: TextEncoder | None, captions: list[str], settings: EvaluationSettings) -> np.ndarray | None:
    """Return the captions' sentence features (N, D) by the encoder that scores the fit, where there is one."""
    if encoder is None:
        return None
    parts = parts_of(np.arange(len(captions)), encoder, settings)
    texts = [encoder.encode([captions[row] for row in part]).sentence.double().cpu() for part in parts]
    return torch.cat(texts).numpy()
