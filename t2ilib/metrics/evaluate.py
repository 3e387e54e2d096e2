"""Evaluate a system on captions it has not seen: one protocol for every paper.

One picture per caption; captions and noise are drawn by a seed before anything is painted, so neither the batch
size nor the number of systems compared before changes them. Every number is also measured on the real pictures of the
same captions (`real`), and comes with what guessing reaches (`chance`). Pictures are looked at batch by batch and let
go; only their features stay, a kilobyte or so each.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import parse
from t2ilib.devices import CPU_BATCH, GPU_BATCH
from t2ilib.encoders.encoder import PictureEncoder, TextEncoder, sees
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import accuracy_of
from t2ilib.metrics.diversity import diversity
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.judge import Judge
from t2ilib.metrics.r_precision import clip_score, r_precision
from t2ilib.pictures import to_float
from t2ilib.task import Painter

SPREAD = 2000  # real pictures, at most, whose mean distance is the unit of the diversity


@dataclass(frozen=True)
class EvaluationSettings:
    """What is drawn for an evaluation."""

    n: int = 1000  # pictures, one caption each; the literature's is 30,000
    seed: int = 0  # of the choice of captions, the noise and the rivals in R-precision
    batch_size: int = 0  # pictures at a time; 0: what the device does fastest
    diversity_captions: int = 32  # captions of which several pictures are drawn
    per_caption: int = 8  # how many
    truncation: float | None = None  # of the noise, as in System.noise; None: plain normal noise
    candidates: int = 100  # captions ranked in R-precision, the true one included


class Look:
    """What judge and CLIP see in a stream of pictures: features and attributes, not the pictures."""

    def __init__(self, judge: Judge | None, encoder: PictureEncoder | None):
        self.judge, self.encoder = judge, encoder
        self.features: list[Tensor] = []  # by the judge, (B, F) each, on the CPU
        self.attributes: list[Tensor] = []  # value indices by the judge, (B, A) each
        self.embeddings: list[Tensor] = []  # by the CLIP, (B, D) each

    @torch.no_grad()
    def update(self, pictures: Tensor) -> None:
        """Look at pictures (B, 3, H, W) in [-1, 1]."""
        if self.encoder is not None:
            self.embeddings.append(self.encoder.encode_images(pictures.to(self.encoder.device)).float().cpu())
        if self.judge is not None:
            features, attributes = self.judge.read(pictures)
            self.features.append(features)
            self.attributes.append(attributes)

    def vectors(self) -> np.ndarray:
        """Return the judge's features, or the CLIP's where there is no judge: (N, F)."""
        return torch.cat(self.embeddings if self.judge is None else self.features).numpy()


def evaluate(
    painter: Painter,
    dataset: CaptionedImages,
    encoder: TextEncoder,
    judge: Judge | None = None,
    settings: EvaluationSettings | None = None,
    judge_encoder: TextEncoder | None = None,
) -> dict[str, dict]:
    """Measure `painter` on the captions of `dataset` (a test split); returns {"metrics": ..., "protocol": ...}.

    `encoder` conditions the generator and lies on its device; `judge_encoder`, by default the same, scores how well
    pictures fit captions. A generator that was trained against a CLIP has to be scored by another.

    With a `judge` (toy birds): attribute accuracy, toy FD and diversity in the judge's features. Without one
    (photographs): "CLIP FD" and diversity in the encoder's image features. With an encoder that sees pictures:
    R-precision and CLIP score; otherwise they are None. A Frechet distance is None when there are too few pictures for
    its features. `write_result(folder, **evaluate(...))` keeps the outcome. Raises `InputError` for an empty dataset.
    """
    settings, started = settings or EvaluationSettings(), time.perf_counter()
    rows, captions = choose_captions(dataset, settings)
    judge_encoder = judge_encoder or encoder
    seeing = judge_encoder if sees(judge_encoder) else None
    painted, real = (Look(judge, seeing) if judge or seeing else None for _ in range(2))
    for pictures in paint(painter, captions, encoder, settings):
        if painted:
            painted.update(pictures)
    metrics = {"attribute_accuracy": None, "r_precision": None, "clip_score": None}
    if painted:
        for part in _parts(rows, encoder, settings):
            real.update(to_float(dataset.images[part]))
        texts = _sentences(seeing, captions, settings)
        found, reachable = (_alignment(look, captions, texts, settings) for look in (painted, real))
        metrics |= found | {"real": reachable}
        metrics |= _distribution(painter, dataset, encoder, painted, (captions, settings))
    return {"metrics": metrics, "protocol": _protocol(dataset, (encoder, judge_encoder), judge, settings, started)}


def choose_captions(dataset: CaptionedImages, settings: EvaluationSettings) -> tuple[np.ndarray, list[str]]:
    """Choose `settings.n` pictures (each once, until all are used) and one caption of each; rows (n,) and captions."""
    if not len(dataset):
        raise InputError("dataset: no pictures to evaluate on; choose another split")
    rng = np.random.default_rng(settings.seed)
    rounds = -(-settings.n // len(dataset))
    rows = np.concatenate([rng.permutation(len(dataset)) for _ in range(rounds)])[: settings.n]
    return rows, [dataset.captions[row][rng.integers(len(dataset.captions[row]))] for row in rows]


def paint(
    painter: Painter, captions: list[str], encoder: TextEncoder, settings: EvaluationSettings, stream: int = 0
) -> Iterator[Tensor]:
    """Yield one picture per caption in batches (B, 3, H, W) in [-1, 1]; noise depends on seed and stream alone."""
    generator = torch.Generator().manual_seed(settings.seed * 1000 + stream)
    noise = painter.noise(len(captions), generator, truncation=settings.truncation)
    for part in _parts(np.arange(len(captions)), encoder, settings):
        text = encoder.encode([captions[row] for row in part])
        with torch.no_grad():
            yield painter.generate(text, noise[part].to(text.sentence.device)).float().clamp(-1, 1)


def _sentences(encoder: TextEncoder | None, captions: list[str], settings: EvaluationSettings) -> np.ndarray | None:
    """Return the captions' sentence features (N, D) by the encoder that scores the fit, where there is one."""
    if encoder is None:
        return None
    parts = _parts(np.arange(len(captions)), encoder, settings)
    texts = [encoder.encode([captions[row] for row in part]).sentence.double().cpu() for part in parts]
    return torch.cat(texts).numpy()


def _alignment(look: Look, captions: list[str], texts: np.ndarray | None, settings: EvaluationSettings) -> dict:
    """Attribute accuracy, R-precision and CLIP score of what was seen; None where there is no extractor."""
    found: dict = {"attribute_accuracy": None, "r_precision": None, "clip_score": None}
    if look.judge is not None:
        mentioned = [parse(caption) for caption in captions]
        found["attribute_accuracy"] = accuracy_of(torch.cat(look.attributes), mentioned, look.judge.config.attributes)
    if look.encoder is not None:
        images = torch.cat(look.embeddings).double().numpy()
        found["clip_score"] = clip_score(images, texts)
        if len(set(captions)) >= settings.candidates:
            found["r_precision"] = r_precision(images, texts, settings.candidates, settings.seed, groups=captions)
    return found


def _distribution(
    painter: Painter, dataset: CaptionedImages, encoder: TextEncoder, painted: Look, drawn: tuple
) -> dict[str, float | None]:
    """Frechet distance of the pictures painted to all real ones, and the diversity of pictures of one caption."""
    captions, settings = drawn
    seeing = None if painted.judge else painted.encoder  # one of the two decides, so only that one looks
    reference, varied = (Look(painted.judge, seeing) for _ in range(2))
    for part in _parts(np.arange(len(dataset)), encoder, settings):
        reference.update(to_float(dataset.images[part]))
    chosen = captions[: settings.diversity_captions]
    repeated = [caption for caption in chosen for _ in range(settings.per_caption)]
    for pictures in paint(painter, repeated, encoder, settings, stream=1):
        varied.update(pictures)
    ours, theirs = painted.vectors(), reference.vectors()
    enough = min(len(ours), len(theirs)) > ours.shape[1]
    some = np.random.default_rng(settings.seed).permutation(len(theirs))[:SPREAD]
    return {
        "clip_fd" if painted.judge is None else "toy_fd": frechet_distance(ours, theirs) if enough else None,
        "diversity": diversity(varied.vectors().reshape(len(chosen), settings.per_caption, -1), theirs[some]),
    }


def _parts(rows: np.ndarray, encoder: TextEncoder, settings: EvaluationSettings) -> list[np.ndarray]:
    """Cut rows into parts of the batch size."""
    size = settings.batch_size or (CPU_BATCH if encoder.device.type == "cpu" else GPU_BATCH)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def _protocol(
    dataset: CaptionedImages, encoders: tuple, judge: Judge | None, settings: EvaluationSettings, started: float
) -> dict:
    """What the numbers depend on, for the result file."""
    encoder, judge_encoder = encoders
    return {
        **asdict(settings),
        "text_encoder": encoder.fingerprint,
        "judge_encoder": judge_encoder.fingerprint,
        "extractor": judge.fingerprint if judge else judge_encoder.name,
        "real_size": dataset.size,
        "resize": f"{judge.config.image_size} px, bicubic, antialiased" if judge else "the CLIP encoder's own",
        "reference_split": sorted(set(dataset.splits.tolist())),
        "reference_count": len(dataset),
        "seconds": round(time.perf_counter() - started, 1),
    }
