"""Evaluate a system on captions it has not seen: one protocol for every paper.

One picture per caption; captions and noise are drawn by a seed before anything is generated, so neither the batch
size nor the number of systems compared before changes them. Every number is also measured on the real pictures of the
same captions (`real`), which is what the metric can reach, and comes with what guessing reaches (`chance`).
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import Judge, attribute_accuracy
from t2ilib.metrics.diversity import diversity
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.r_precision import clip_score, r_precision
from t2ilib.noise import truncated_noise

Generate = Callable[[Tensor, Tensor], Tensor]  # sentence (B, D), noise (B, Z) -> pictures (B, 3, H, W) in [-1, 1]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is drawn for an evaluation."""

    n: int = 1000  # pictures, one caption each; the literature's is 30,000
    seed: int = 0  # of the choice of captions, the noise and the rivals in R-precision
    batch_size: int = 100
    noise_size: int = 100
    diversity_captions: int = 32  # captions of which several pictures are drawn
    per_caption: int = 8  # how many
    truncation: float | None = None  # of the noise, as in System.noise; None: plain normal noise
    candidates: int = 100  # captions ranked in R-precision, the true one included
    device: str = "cpu"


def evaluate(
    generate: Generate,
    dataset: CaptionedImages,
    encoder,
    judge: Judge | None = None,
    settings: EvaluationSettings | None = None,
    judge_encoder=None,
) -> dict[str, dict]:
    """Measure `generate` on the captions of `dataset` (a test split); returns {"metrics": ..., "protocol": ...}.

    `encoder` conditions the generator; `judge_encoder`, by default the same, scores how well pictures fit captions. A
    generator that was trained against a CLIP has to be scored by another.

    With a `judge` (toy birds): attribute accuracy, toy FD and diversity in the judge's features. Without one
    (photographs): "CLIP FD" and diversity in the encoder's image features. With an encoder that sees pictures
    (`encode_images`): R-precision and CLIP score; otherwise they are None. A Frechet distance is None when there are
    too few pictures for its features. `write_result(folder, **evaluate(...))` keeps the outcome. Raises `InputError`
    for an empty dataset.
    """
    settings, started = settings or EvaluationSettings(), time.perf_counter()
    rows, captions = choose_captions(dataset, settings)
    pictures = generate_pictures(generate, captions, encoder, settings)
    judge_encoder = judge_encoder or encoder
    seeing = judge_encoder if hasattr(judge_encoder, "encode_images") else None
    metrics: dict = _alignment(pictures, captions, seeing, judge, settings)
    metrics["real"] = _alignment(to_pictures(dataset.images[rows]), captions, seeing, judge, settings)
    if judge or seeing:
        extract = judge.features if judge else _image_features(judge_encoder)
        reference = _in_batches(lambda part: extract(to_pictures(part)), dataset.images, settings)
        varied = generate_varied(generate, captions[: settings.diversity_captions], encoder, settings)
        distance = _distance(_in_batches(extract, pictures, settings), reference)
        metrics["toy_fd" if judge else "clip_fd"] = distance
        features = _in_batches(extract, varied.flatten(0, 1), settings).reshape(*varied.shape[:2], -1)
        metrics["diversity"] = diversity(features, reference)
    return {"metrics": metrics, "protocol": _protocol(dataset, (encoder, judge_encoder), judge, settings, started)}


def choose_captions(dataset: CaptionedImages, settings: EvaluationSettings) -> tuple[np.ndarray, list[str]]:
    """Choose `settings.n` pictures (each once, until all are used) and one caption of each; rows (n,) and captions."""
    if not len(dataset):
        raise InputError("dataset: no pictures to evaluate on; choose another split")
    rng = np.random.default_rng(settings.seed)
    rounds = -(-settings.n // len(dataset))
    rows = np.concatenate([rng.permutation(len(dataset)) for _ in range(rounds)])[: settings.n]
    return rows, [dataset.captions[row][rng.integers(len(dataset.captions[row]))] for row in rows]


def generate_pictures(
    generate: Generate, captions: list[str], encoder, settings: EvaluationSettings, stream: int = 0
) -> Tensor:
    """One picture per caption, (n, 3, H, W) in [-1, 1] on the CPU; noise depends on seed and stream, not on batches."""
    generator = torch.Generator().manual_seed(settings.seed * 1000 + stream)
    noise = truncated_noise((len(captions), settings.noise_size), settings.truncation, generator)
    pictures = []
    with torch.no_grad():
        for first in range(0, len(captions), settings.batch_size):
            part = slice(first, first + settings.batch_size)
            sentence = encoder.encode(captions[part]).sentence.to(settings.device)
            pictures.append(generate(sentence, noise[part].to(settings.device)).float().clamp(-1, 1).cpu())
    return torch.cat(pictures)


def generate_varied(generate: Generate, captions: list[str], encoder, settings: EvaluationSettings) -> Tensor:
    """`settings.per_caption` pictures of each caption, (captions, K, 3, H, W), from noise of their own."""
    repeated = [caption for caption in captions for _ in range(settings.per_caption)]
    pictures = generate_pictures(generate, repeated, encoder, settings, stream=1)
    return pictures.unflatten(0, (len(captions), settings.per_caption))


def to_pictures(images: np.ndarray) -> Tensor:
    """Pictures (N, H, W, 3) uint8 as (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _alignment(images: Tensor, captions: list[str], encoder, judge: Judge | None, settings: EvaluationSettings) -> dict:
    """Attribute accuracy, R-precision and CLIP score of pictures and captions; None where there is no extractor."""
    found = {"attribute_accuracy": attribute_accuracy(judge, images, captions) if judge else None}
    found |= {"r_precision": None, "clip_score": None}
    if encoder is not None:
        image_features = _in_batches(_image_features(encoder), images, settings)
        text_features = _in_batches(lambda part: encoder.encode(part).sentence, captions, settings)
        found["clip_score"] = clip_score(image_features, text_features)
        if len(set(captions)) >= settings.candidates:
            found["r_precision"] = r_precision(
                image_features, text_features, settings.candidates, settings.seed, groups=captions
            )
    return found


def _image_features(encoder) -> Callable[[Tensor], Tensor]:
    """The encoder's view of pictures, which are taken to its device first."""
    return lambda images: encoder.encode_images(images.to(getattr(encoder, "device", images.device)))


def _distance(features: np.ndarray, reference: np.ndarray) -> float | None:
    """Frechet distance, or None when either set has too few pictures for its features."""
    enough = min(len(features), len(reference)) > features.shape[1]
    return frechet_distance(features, reference) if enough else None


def _in_batches(function: Callable, items, settings: EvaluationSettings) -> np.ndarray:
    """Apply `function` to parts of `items` without gradients; rows of float64."""
    starts = range(0, len(items), settings.batch_size)
    with torch.no_grad():
        parts = [function(items[start : start + settings.batch_size]).double().cpu() for start in starts]
    return torch.cat(parts).numpy()


def _protocol(
    dataset: CaptionedImages, encoders: tuple, judge: Judge | None, settings: EvaluationSettings, started: float
) -> dict:
    """What the numbers depend on, for the result file."""
    encoder, judge_encoder = encoders
    return {
        **asdict(settings),
        "text_encoder": getattr(encoder, "fingerprint", None) or encoder.name,
        "judge_encoder": getattr(judge_encoder, "fingerprint", None) or judge_encoder.name,
        "extractor": judge.fingerprint if judge else judge_encoder.name,
        "real_size": dataset.size,
        "resize": f"{judge.config.image_size} px, bicubic, antialiased" if judge else "the CLIP encoder's own",
        "reference_split": sorted(set(dataset.splits.tolist())),
        "reference_count": len(dataset),
        "seconds": round(time.perf_counter() - started, 1),
    }
