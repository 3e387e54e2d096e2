"""Charts of what is measured on shipped weights while the figure is drawn: truncation, and GALIP's look at its map."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from t2ilib import plots
from t2ilib.data import toy
from t2ilib.devices import CPU_BATCH
from t2ilib.features import Text
from t2ilib.figures.painted import captions_of, stack
from t2ilib.figures.saved import save, seen, weights_of
from t2ilib.metrics.diversity import mean_pairwise_distance
from t2ilib.metrics.intervals import interval
from t2ilib.metrics.judge import FOLDER as JUDGE
from t2ilib.metrics.judge import Judge, load_judge
from t2ilib.sampling import Sampler, load_sampler

CUTS = (0.3, 0.5, 0.7, 0.88, None)  # truncations; DF-GAN is evaluated at 0.88; None: as in training
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)  # of the transformer's answer in GALIP's map; trained with 0.1
COUNT, EACH = 40, 6  # captions, and pictures of each
LOOKED_AT = 160  # captions of the look at GALIP's map
Found = tuple[float, list[float]]  # a mean over captions and its 95 % interval


def truncation(name: str) -> None:
    """Quality and diversity of DF-GAN's pictures by truncation, with 95 % intervals over captions."""
    judge, systems = load_judge(), ("dfgan_toy", "dfgan_clip_toy")
    captions = captions_of(COUNT)
    real = toy.render(toy.sample_attributes(400, seed=11), range(400), 64)
    unit = mean_pairwise_distance(judge.features(torch.from_numpy(real).permute(0, 3, 1, 2) / 127.5 - 1).numpy())
    panels: dict[str, dict[str, list]] = {"attribute accuracy": {}, "diversity, real birds 1": {}}
    for weights in systems:
        sampler = load_sampler(weights, "cpu")
        found = [_quality(judge, sampler, captions, unit, cut) for cut in CUTS]
        for title, column in zip(panels, zip(*found, strict=True), strict=True):
            panels[title][weights] = column
    save(name, _lines(panels, ["none" if cut is None else f"{cut:g}" for cut in CUTS], "truncation"), _used(systems))


def residual(weights: str, name: str) -> None:
    """How much the frozen transformer's answer adds to GALIP's map, and what becomes of pictures with more or less."""
    judge, sampler = load_judge(), load_sampler(weights, "cpu")
    captions = captions_of(LOOKED_AT)
    asked = sampler.encoder.encode(captions), sampler.noise(len(captions), torch.Generator().manual_seed(0))
    plain, _ = _painted(sampler, *asked, sampler.system.config.bridge)
    found = [_effect(judge, _painted(sampler, *asked, share), plain, captions) for share in SHARES]
    panels = {title: {weights: list(own)} for title, own in zip(RESIDUAL, zip(*found, strict=True), strict=True)}
    save(name, _lines(panels, [f"{share:g}" for share in SHARES], "share of the answer"), _used([weights]))


RESIDUAL = ("length of what is added / map's", "mean change of a pixel, of its range", "attribute accuracy")


def residual_pictures(weights: str, name: str) -> None:
    """Pictures of six captions with rising shares of the transformer's answer: a row per share."""
    sampler, captions = load_sampler(weights, "cpu"), captions_of(6)
    text, noise = sampler.encoder.encode(captions), sampler.noise(6, torch.Generator().manual_seed(0))
    rows = [_painted(sampler, text, noise, share)[0] for share in SHARES]
    told = seen(weights, captions * len(SHARES), 6, seed=[0] * 30, share=[s for s in SHARES for _ in captions])
    figure = plots.sheet(stack(torch.cat(rows)), 6, captions, rows=[f"{share:g}" for share in SHARES])
    save(name, figure, [weights_of(weights)], told)


@contextmanager
def looked_at(sampler: Sampler, share: float) -> Iterator[list[np.ndarray]]:
    """Let GALIP's generator add another share of the transformer's answer to its map, for as long as the block lasts.

    Yields a list that grows by an array (B,) with each batch: the length of what was added over that of the map.
    """
    bridge, ratios = sampler.system.generator.bridge, []
    kept, eye = bridge.share, bridge.eye

    class Watched:
        """The eye, which also notes how long its answer is."""

        def call(self, method: str, predicted: Tensor, *rest: object) -> Tensor:
            answer = eye.call(method, predicted, *rest)
            lengths = [each.detach().flatten(1).norm(dim=1) for each in (share * answer, predicted)]
            ratios.append((lengths[0] / lengths[1]).cpu().numpy())
            return answer

    bridge.share, bridge.eye = share, Watched()
    try:
        yield ratios
    finally:
        bridge.share, bridge.eye = kept, eye


def _painted(sampler: Sampler, text: Text, noise: Tensor, share: float) -> tuple[Tensor, np.ndarray]:
    """Return pictures (N, 3, H, W) with this share of the answer, and the ratio of lengths (N,) of each."""
    parts = torch.arange(len(noise)).split(CPU_BATCH)
    with looked_at(sampler, share) as ratios:
        pictures = torch.cat([sampler.generate(text[part], noise[part]) for part in parts])
    return pictures, np.concatenate(ratios)


def _effect(judge: Judge, found: tuple[Tensor, np.ndarray], plain: Tensor, captions: Sequence[str]) -> list[Found]:
    """Return the numbers of `RESIDUAL` for pictures with their ratios of lengths, beside the `plain` pictures."""
    pictures, ratio = found
    moved = (pictures - plain).abs().flatten(1).mean(1) / 2
    return [_found(each) for each in (ratio, moved.numpy(), _mentioned(judge, judge.predict(pictures), captions))]


def _quality(judge: Judge, sampler: Sampler, captions: Sequence[str], unit: float, cut: float | None) -> list[Found]:
    """Return attribute accuracy and diversity (in units of real birds) at one truncation."""
    pictures = sampler.sample(captions, seed=0, per_caption=EACH, truncation=cut)
    features, predicted = judge.read(pictures)
    apart = np.array([mean_pairwise_distance(own) for own in features.numpy().reshape(len(captions), EACH, -1)]) / unit
    hits = _mentioned(judge, predicted, [caption for caption in captions for _ in range(EACH)])
    return [_found(hits.reshape(-1, EACH).mean(1)), _found(apart)]


def _found(values: np.ndarray) -> Found:
    """Return the mean of values (N,) and its interval, which is the mean itself where all are alike."""
    mean = float(values.mean())
    return mean, interval(values) if np.ptp(values) else [mean, mean]


def _mentioned(judge: Judge, predicted: Tensor, captions: Sequence[str]) -> np.ndarray:
    """Return, picture by picture (N,), the share of its caption's attributes that it shows; `predicted` (N, A)."""
    attributes = judge.config.attributes
    shares = []
    for row, caption in zip(predicted, captions, strict=True):
        told = toy.parse(caption)
        found = {name: attributes[name][value] for name, value in zip(attributes, row, strict=True)}
        shares.append(np.mean([found[key] == value for key, value in told.items()]))
    return np.array(shares)


def _lines(panels: Mapping[str, Mapping[str, Sequence[Found]]], ticks: Sequence[str], label: str):
    """Return the chart of means with their intervals."""
    means = {title: {key: [mean for mean, _ in found] for key, found in own.items()} for title, own in panels.items()}
    around = {title: {key: [b for _, b in found] for key, found in own.items()} for title, own in panels.items()}
    return plots.lines(means, ticks, label, bounds=around)


def _used(systems: Sequence[str]) -> list:
    """Return the files that a measurement reads: the systems' weights and the judge's."""
    return [*map(weights_of, systems), *sorted(path for path in JUDGE.iterdir() if path.is_file())]
