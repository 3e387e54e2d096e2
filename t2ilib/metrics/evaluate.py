"""Evaluate a system on captions it has not seen: one protocol for every paper.

One picture per caption; captions and noise are drawn by a seed before anything is painted, so neither the batch
size nor the number of systems compared before changes them. Pictures are looked at batch by batch and let go; only
their features stay, a kilobyte or so each.

Beside the system's numbers stand those of others that answer the same captions: real pictures (`real`), what guessing
reaches (`chance`), and on toy birds a painter of one-coloured birds (`one_colour`): whoever does not beat it has learnt
little. A generated picture can beat a real one in R-precision and CLIP score: it shows what its caption says and little
else, where a real one shows much that the caption leaves out and other captions mention. Those two say how plainly
pictures speak of their captions; they are no distance from the truth.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import parse
from t2ilib.devices import CPU_BATCH, GPU_BATCH
from t2ilib.encoders.clip import CLIPEncoder
from t2ilib.encoders.encoder import PictureEncoder, TextEncoder, sees
from t2ilib.encoders.reading import directions_of
from t2ilib.errors import InputError
from t2ilib.metrics.attributes import accuracy_of
from t2ilib.metrics.baselines import birds_like, faithful_birds, one_coloured_birds, rendered
from t2ilib.metrics.diversity import diversity
from t2ilib.metrics.frechet import frechet_from_moments, moments
from t2ilib.metrics.intervals import GROUPS, interval, jackknifed
from t2ilib.metrics.judge import Judge
from t2ilib.metrics.r_precision import clip_scores, r_precision
from t2ilib.pictures import to_float
from t2ilib.settings import SEED, TRUNCATION, Range, check_ranges
from t2ilib.task import Painter

VERSION = 2  # of the measures: since 2 each caption counts once
CROWD = 20_000  # birds from which those are taken that a caption fits
SPREAD = 2000  # real pictures, at most, whose mean distance is the unit of the diversity


@dataclass(frozen=True)
class EvaluationSettings:
    """What is drawn for an evaluation."""

    n: Annotated[int, Range(least=1, most=10_000_000)] = 1000  # pictures, one caption each; the literature's is 30,000
    seed: Annotated[int, SEED] = 0  # of the choice of captions, the noise, R-precision's rivals
    batch_size: Annotated[int, Range(least=0, most=1_000_000)] = 0  # 0: what the device does fastest
    diversity_captions: Annotated[int, Range(least=1, most=1_000_000)] = 32  # of which several pictures are drawn
    per_caption: Annotated[int, Range(least=2, most=10_000)] = 8  # how many
    truncation: float | None = None  # of the noise, as in System.noise; None: plain normal noise
    candidates: Annotated[int, Range(least=2, most=10_000)] = 100  # captions ranked in R-precision, the true one too

    def __post_init__(self) -> None:
        """Raise InputError for numbers that nothing can be measured with."""
        check_ranges(self, "evaluation.")
        if self.truncation is not None and not TRUNCATION.holds(self.truncation):
            raise InputError(f"evaluation.truncation = {self.truncation}: must be {TRUNCATION}")


class Look:
    """What judge and CLIP see in a stream of pictures: features and attributes, not the pictures."""

    def __init__(self, judge: Judge | None, encoder: PictureEncoder | None, pictures: Iterable[Tensor]):
        """Look at all pictures, batches (B, 3, H, W) in [-1, 1]."""
        self.judge, self.encoder = judge, encoder
        self.features: list[Tensor] = []  # by the judge, (B, F) each, on the CPU
        self.attributes: list[Tensor] = []  # value indices by the judge, (B, A) each
        self.embeddings: list[Tensor] = []  # by the CLIP, (B, D) each
        for batch in pictures:
            self._update(batch)

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


class Ruler:
    """All that the pictures of one evaluation are measured against, whoever made them."""

    def __init__(
        self,
        readers: tuple[Judge | None, PictureEncoder | None],
        captions: list[str],
        reference: Iterable[Tensor],
        settings: EvaluationSettings,
    ):
        """Read the captions and look at the `reference`, all real pictures."""
        self.judge, self.encoder = readers
        self.captions, self.settings = captions, settings
        self.mentioned = [parse(caption) for caption in captions]
        self.texts = _sentences(self.encoder, captions, settings)
        features = self.features(reference)
        self.moments = moments(features) if len(features) > features.shape[1] else None
        self.spread = features[np.random.default_rng(settings.seed).permutation(len(features))[:SPREAD]]

    def measure(
        self,
        pictures: Iterable[Tensor],
        several: Iterable[Tensor] | None = None,
        crowd: np.ndarray | None = None,
        *,
        distance: bool = True,
    ) -> dict:
        """Return the numbers of one painter, each None where there is nobody to see it.

        `pictures`: one per caption; `several`: `per_caption` of each of the first captions, for the diversity;
        `crowd`: features (N, F) whose distribution is compared with the reference, by default those of `pictures`;
        without `distance` none is.
        """
        look = Look(self.judge, self.encoder, pictures)
        found: dict = {"attribute_accuracy": None, "r_precision": None, "clip_score": None, "intervals": {}}
        if self.judge is not None:
            values = torch.cat(look.attributes)
            found["attribute_accuracy"] = accuracy_of(values, self.mentioned, self.judge.config.attributes)
        if self.encoder is not None:
            images = torch.cat(look.embeddings).double().numpy()
            scores = clip_scores(images, self.texts)
            found["clip_score"], found["intervals"]["clip_score"] = float(scores.mean()), interval(scores)
            if len(set(self.captions)) >= self.settings.candidates:
                rivals = self.settings.candidates, self.settings.seed
                found["r_precision"] = r_precision(images, self.texts, *rivals, groups=self.captions)
        if distance:
            name = "clip_fd" if self.judge is None else "toy_fd"
            found[name], found["intervals"][name] = self._distance(look.vectors() if crowd is None else crowd)
        if several is not None:
            features = self.features(several)
            features = features.reshape(-1, self.settings.per_caption, features.shape[1])
            found["diversity"] = diversity(features, self.spread)
        return found

    def features(self, pictures: Iterable[Tensor]) -> np.ndarray:
        """Return the features (N, F) of pictures, by the judge; by the CLIP where there is none."""
        return Look(self.judge, None if self.judge else self.encoder, pictures).vectors()

    def _distance(self, features: np.ndarray) -> tuple[float | None, list[float] | None]:
        """Return the Frechet distance of features (N, F) to the reference, and its interval; None for too few."""
        count, size = features.shape
        if self.moments is None or count <= size:
            return None, None

        def distance(rows: np.ndarray) -> float:
            return frechet_from_moments(*moments(features[rows]), *self.moments)

        value = distance(np.arange(count))
        enough = count - -(-count // GROUPS) > size  # also without one of the jackknife's groups
        return value, jackknifed(value, distance, count) if enough else None


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
    its features. `intervals` and the entries `interval` hold [low, high], 95 %: see metrics/intervals.py.

    `real` and, with a judge on toy birds, `one_colour` hold the same numbers of pictures that no network painted: the
    real ones of the captions, and birds in the colour of the body. On toy birds the toy FD of `real` is that of birds
    drawn anew, its diversity that of birds that have no more in common than their caption says; photographs have
    neither.
    `write_result(folder, **evaluate(...))` keeps the outcome. Raises `InputError` for an empty dataset.
    """
    settings, started = settings or EvaluationSettings(), time.perf_counter()
    rows, captions = choose_captions(dataset, settings)
    judge_encoder = judge_encoder or encoder
    readers = judge, (judge_encoder if sees(judge_encoder) else None)
    repeated = [caption for caption in captions[: settings.diversity_captions] for _ in range(settings.per_caption)]
    painted, several = (paint(painter, asked, encoder, settings, i) for i, asked in enumerate((captions, repeated)))

    def shown(rows: np.ndarray) -> Iterator[Tensor]:
        return (to_float(dataset.images[part]) for part in _parts(rows, encoder, settings))

    def drawn(birds: np.ndarray) -> Iterator[Tensor]:
        places = _parts(np.arange(len(birds)), encoder, settings)
        whole = dataset.source.get("cropped_from", dataset.size)
        edge = (whole - dataset.size) // 2
        inside = slice(edge, edge + dataset.size)
        pictures = (rendered(birds[part], whole, settings.seed, part[0])[:, inside, inside] for part in places)
        return (to_float(part) for part in pictures)

    metrics: dict = dict.fromkeys(("attribute_accuracy", "r_precision", "clip_score"))
    if not any(readers):
        list(painted)
    else:
        ruler = Ruler(readers, captions, shown(np.arange(len(dataset))), settings)
        metrics = ruler.measure(painted, several)
        if judge is None or dataset.attributes is None:
            metrics["real"] = ruler.measure(shown(rows), distance=False)
        else:
            anew = birds_like(dataset, settings.n, settings.seed)
            alike = faithful_birds(repeated, birds_like(dataset, CROWD, settings.seed), settings.seed)
            metrics["real"] = ruler.measure(shown(rows), drawn(alike), ruler.features(drawn(anew)))
            plain = (drawn(one_coloured_birds(asked, settings.seed)) for asked in (captions, repeated))
            metrics["one_colour"] = ruler.measure(*plain)
    return {"metrics": metrics, "protocol": _protocol(dataset, (encoder, judge_encoder), judge, settings, started)}


@torch.no_grad()
def real_precision(encoder: CLIPEncoder, dataset: CaptionedImages, count: int = 1000, seed: int = 0) -> dict:
    """Return the R-precision of `count` real pictures by a CLIP, each with one of its captions, as `r_precision` does.

    Each picture ranks its caption among 100 that read differently, or among all where there are fewer.
    """
    rows, captions = choose_captions(dataset, EvaluationSettings(min(count, len(dataset)), seed))
    images = directions_of(encoder, np.asarray(dataset.images[rows]))
    texts = [encoder.encode(captions[i : i + 250]).sentence.float().cpu() for i in range(0, len(captions), 250)]
    candidates = min(100, len(set(captions)))
    return r_precision(images.numpy(), torch.cat(texts).numpy(), candidates, seed, groups=captions)


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
        "version": VERSION,
        **asdict(settings),
        "source": dataset.source,
        "text_encoder": encoder.fingerprint,
        "judge_encoder": judge_encoder.fingerprint,
        "extractor": judge.fingerprint if judge else judge_encoder.name,
        "real_size": dataset.size,
        "resize": f"{judge.config.image_size} px, bicubic, antialiased" if judge else "the CLIP encoder's own",
        "reference_split": sorted(set(dataset.splits.tolist())),
        "reference_count": len(dataset),
        "seconds": round(time.perf_counter() - started, 1),
    }
