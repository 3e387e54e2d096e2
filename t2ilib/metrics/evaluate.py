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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.encoders.clip import CLIPEncoder
from t2ilib.encoders.encoder import TextEncoder, sees
from t2ilib.encoders.reading import directions_of
from t2ilib.metrics.baselines import birds_like, faithful_birds, one_coloured_birds, rendered
from t2ilib.metrics.drawing import ALONE, EvaluationSettings, Team, choose_captions, halves, overlapped, paint, parts_of
from t2ilib.metrics.judge import Judge
from t2ilib.metrics.measured import Metric
from t2ilib.metrics.r_precision import r_precision
from t2ilib.metrics.references import features_of
from t2ilib.metrics.ruler import Ruler, features_by
from t2ilib.metrics.watching import Watch
from t2ilib.pictures import to_float
from t2ilib.task import Painter

VERSION = 2  # of the measures: since 2 each caption counts once
CROWD = 20_000  # birds from which those are taken that a caption fits


def evaluate(  # noqa: PLR0913
    painter: Painter,
    dataset: CaptionedImages,
    encoder: TextEncoder,
    judge: Judge | None = None,
    settings: EvaluationSettings | None = None,
    judge_encoder: TextEncoder | None = None,
    *,
    more: Callable[[], Mapping[str, Metric]] = dict,
    team: Team = ALONE,
    folder: str | Path | None = None,
) -> dict[str, dict]:
    """Measure `painter` on the captions of `dataset` (a test split); returns {"metrics": ..., "protocol": ...}.

    `encoder` conditions the generator and lies on its device; `judge_encoder`, by default the same, scores how well
    pictures fit captions. A generator that was trained against a CLIP has to be scored by another.

    With a `judge` (toy birds): attribute accuracy, toy FD and diversity in the judge's features. Without one
    (photographs): "CLIP FD" and diversity in the encoder's image features. With an encoder that sees pictures:
    R-precision and CLIP score; otherwise they are None. A Frechet distance is None when there are too few pictures for
    its features. `intervals` and the entries `interval` hold [low, high], 95 %: see metrics/intervals.py. What guessing
    reaches stands beside a number as its `chance`, the CLIP score's under `chance`: see `clip_chance`.

    `real` and, with a judge on toy birds, `one_colour` hold the same numbers of pictures that no network painted: the
    real ones of the captions, and birds in the colour of the body. On toy birds the toy FD of `real` is that of birds
    drawn anew, its diversity that of birds that have no more in common than their caption says. Of photographs it is
    the distance between disjoint halves of the whole split, drawn by the seed, whose sizes are `real_halves` of the
    protocol; there is no diversity of theirs, as nobody took several of one caption.

    `more` makes further metrics by name, which look at the same pictures: their numbers stand beside the others, how
    each came about under `measures` of the protocol. Of real pictures it makes its own, for those that need no picture
    beside each; a distance is that of birds drawn anew, and of photographs there is none.
    `folder` keeps the features of the real pictures for the next evaluation, see references.py; None keeps nothing.
    Of a `team` each process paints and looks at its share; the first alone returns what `more` found.
    `write_result(folder, **evaluate(...))` keeps the outcome. Raises `InputError` for an empty dataset.
    """
    settings, started = settings or EvaluationSettings(), time.perf_counter()
    rows, captions = choose_captions(dataset, settings)
    judge_encoder = judge_encoder or encoder
    readers = judge, (judge_encoder if sees(judge_encoder) else None)
    repeated = [caption for caption in captions[: settings.diversity_captions] for _ in range(settings.per_caption)]
    several = overlapped(paint(painter, repeated, encoder, settings, 1, team), encoder.device)

    def batches(count: int) -> list[np.ndarray]:
        return team.share(parts_of(np.arange(count), encoder, settings))

    def shown(rows: np.ndarray) -> Iterator[Tensor]:
        return (to_float(dataset.images[rows[part]]) for part in batches(len(rows)))

    def drawn(birds: np.ndarray) -> Iterator[Tensor]:
        whole = dataset.source.get("cropped_from", dataset.size)
        edge = (whole - dataset.size) // 2
        inside = slice(edge, edge + dataset.size)
        pictures = (
            rendered(birds[part], whole, settings.seed, part[0])[:, inside, inside] for part in batches(len(birds))
        )
        return (to_float(part) for part in pictures)

    watch = Watch(more(), team)
    painted = overlapped(paint(painter, captions, encoder, settings, 0, team), encoder.device)
    painted = watch.beside(painted, batches(len(captions)), shown(rows))
    metrics: dict = dict.fromkeys(("attribute_accuracy", "r_precision", "clip_score"))
    if not any(readers):
        list(painted)
    else:
        reference = features_of(
            dataset.images,
            lambda: features_by(readers, shown(np.arange(len(dataset))), team),
            _looking(readers, encoder, settings),
            folder,
            team,
        )
        ruler = Ruler(readers, captions, reference, settings, team)
        metrics = ruler.measure(painted, several)
        others = Watch(more(), team)
        if judge is None or dataset.attributes is None:
            one, other = halves(len(dataset), settings.seed)
            compared = {"crowd": reference[one], "against": reference[other]}
            metrics["real"] = ruler.measure(others.alone(shown(rows), batches(len(rows)), len(dataset)), **compared)
        else:
            anew = birds_like(dataset, settings.n, settings.seed)
            alike = faithful_birds(repeated, birds_like(dataset, CROWD, settings.seed), settings.seed)
            crowd = ruler.features(others.alone(drawn(anew), batches(len(anew)), len(anew), distances=True))
            metrics["real"] = ruler.measure(shown(rows), drawn(alike), crowd)
            plain = (drawn(one_coloured_birds(asked, settings.seed)) for asked in (captions, repeated))
            metrics["one_colour"] = ruler.measure(*plain)
        metrics["real"] |= others.numbers()
    metrics |= watch.numbers()
    protocol = _protocol(dataset, (encoder, judge_encoder), judge, settings, started)
    if any(readers) and (judge is None or dataset.attributes is None):
        protocol["real_halves"] = [len(half) for half in halves(len(dataset), settings.seed)]
    return {"metrics": metrics, "protocol": protocol | ({"measures": watch.details()} if watch.metrics else {})}


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


def _looking(
    readers: tuple[Judge | None, TextEncoder | None], encoder: TextEncoder, settings: EvaluationSettings
) -> dict:
    """What the features of real pictures depend on to the last bit: whose they are, the device, the batch size."""
    judge, eye = readers
    network = judge.fingerprint if judge else f"{eye.name}-{eye.fingerprint[:12]}"
    return {"extractor": network, "device": encoder.device.type, "batch": settings.batch_size}


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
        "clip_score": f"100 x cosine by {judge_encoder.name}, negative ones as 0" if sees(judge_encoder) else None,
        "extractor": judge.fingerprint if judge else judge_encoder.name,
        "real_size": dataset.size,
        "resize": f"{judge.config.image_size} px, bicubic, antialiased" if judge else "the CLIP encoder's own",
        "reference_split": sorted(set(dataset.splits.tolist())),
        "reference_count": len(dataset),
        "seconds": round(time.perf_counter() - started, 1),
    }
