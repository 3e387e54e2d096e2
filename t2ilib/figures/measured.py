"""Charts of what is measured on shipped weights while the figure is drawn: truncation, and GALIP's look at its map."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

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
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.intervals import interval, jackknifed
from t2ilib.metrics.judge import FOLDER as JUDGE
from t2ilib.metrics.judge import Judge, load_judge
from t2ilib.sampling import Sampler, load_sampler

CUTS = (0.3, 0.5, 0.7, 0.88, None)  # truncations; DF-GAN is evaluated at 0.88; None: as in training
UNCUT = 1.06  # where "none" stands on the axis of truncations, off the line
SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)  # of the transformer's answer in GALIP's map; trained with 0.1
COUNT, EACH = 100, 4  # captions, and pictures of each
LOOKED_AT = 160  # captions of the look at GALIP's map
REAL = 1000  # real birds that the toy FD compares with
Found = tuple[float, list[float]]  # a mean over captions and its 95 % interval
ACCURACY = "attribute accuracy"
TRUNCATION = (ACCURACY, f"{ACCURACY}, minus none's", "diversity, real birds 1", "diversity, minus none's", "toy FD")
RESIDUAL = ("mean change of a pixel, of its range", ACCURACY, f"{ACCURACY}, minus that at 0.1")


@dataclass(frozen=True)
class Drawn:
    """What the judge finds on pictures: shares of attributes (captions,), diversity (captions,), features (N, F)."""

    attributes: np.ndarray
    diversity: np.ndarray
    features: np.ndarray


def truncation(name: str) -> None:
    """Attributes, diversity and toy FD of DF-GAN's pictures by truncation, and what changes caption by caption.

    Every picture has its own noise, so the 95 % intervals over captions hold the noise's part, too.
    """
    judge, systems = load_judge(), ("dfgan_toy", "dfgan_clip_toy")
    captions = captions_of(COUNT)
    unit = mean_pairwise_distance(_real_features(judge, 400, held_out=None))
    real = _real_features(judge, REAL, held_out=True)
    panels: dict[str, dict[str, list]] = {title: {} for title in TRUNCATION}
    for weights in systems:
        sampler = load_sampler(weights, "cpu")
        uncut = _drawn(judge, sampler, captions, unit, None)
        found = [_quality((judge, sampler, captions, unit), cut, uncut, real) for cut in CUTS]
        for title, column in zip(panels, zip(*found, strict=True), strict=True):
            panels[title][weights] = column
    labels = ["none" if cut is None else f"{cut:g}" for cut in CUTS]
    places = [UNCUT if cut is None else cut for cut in CUTS]
    save(name, _lines(panels, plots.Ticks(labels, places, alone=1), "truncation"), _used(systems))


def residual(weights: str, name: str) -> None:
    """What becomes of GALIP's pictures with more or less of the frozen transformer's answer, caption by caption."""
    judge, sampler = load_judge(), load_sampler(weights, "cpu")
    captions = captions_of(LOOKED_AT)
    asked = sampler.encoder.encode(captions), sampler.noise(len(captions), torch.Generator().manual_seed(0))
    plain, _ = _painted(sampler, *asked, sampler.system.config.bridge)
    found = [_effect(judge, (sampler, *asked, share), plain, captions) for share in SHARES]
    panels = {title: {weights: list(own)} for title, own in zip(RESIDUAL, zip(*found, strict=True), strict=True)}
    ticks = plots.Ticks([f"{share:g}" for share in SHARES], SHARES)
    save(name, _lines(panels, ticks, "share of the answer"), _used([weights]))


def residual_pictures(weights: str, name: str) -> None:
    """Pictures of six captions with rising shares of the transformer's answer: a row per share."""
    sampler, captions = load_sampler(weights, "cpu"), captions_of(6)
    text, noise = sampler.encoder.encode(captions), sampler.noise(6, torch.Generator().manual_seed(0))
    rows = [_painted(sampler, text, noise, share)[0] for share in SHARES]
    told = seen(
        weights_of(weights), captions * len(SHARES), 6, seed=[0] * 30, share=[s for s in SHARES for _ in captions]
    )
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


def _effect(judge: Judge, asked: tuple, plain: Tensor, captions: Sequence[str]) -> list[Found]:
    """Return the numbers of `RESIDUAL` for what `_painted` returns when `asked`, beside the `plain` pictures."""
    pictures, _ = _painted(*asked)
    moved = (pictures - plain).abs().flatten(1).mean(1).numpy() / 2
    shares, trained = (_mentioned(judge, judge.predict(each), captions) for each in (pictures, plain))
    return [_found(each) for each in (moved, shares, shares - trained)]


def _drawn(judge: Judge, sampler: Sampler, captions: Sequence[str], unit: float, cut: float | None) -> Drawn:
    """Draw `EACH` pictures of every caption at one truncation, each from its own noise, and let the judge look."""
    asked = [caption for caption in captions for _ in range(EACH)]
    noise = sampler.noise(len(asked), torch.Generator().manual_seed(0), truncation=cut)
    features, predicted = judge.read(torch.cat(list(sampler.draw(asked, noise))))
    features = features.numpy()
    apart = [mean_pairwise_distance(own) / unit for own in features.reshape(len(captions), EACH, -1)]
    return Drawn(_mentioned(judge, predicted, asked).reshape(-1, EACH).mean(1), np.array(apart), features)


def _quality(how: tuple, cut: float | None, uncut: Drawn, real: np.ndarray) -> list[Found]:
    """Return the numbers of `TRUNCATION` at one truncation; `how` are the arguments of `_drawn` before it."""
    own = uncut if cut is None else _drawn(*how, cut)
    pairs = (own.attributes, uncut.attributes), (own.diversity, uncut.diversity)
    found = [_found(each) for one, other in pairs for each in (one, one - other)]

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(own.features[rows], real)

    count = len(own.features)
    value = distance(np.arange(count))
    return [*found, (value, jackknifed(value, distance, count))]


def _real_features(judge: Judge, count: int, held_out: bool | None) -> np.ndarray:
    """Return the judge's features (count, F) of real birds, of held-out species or of all."""
    real = toy.render(toy.sample_attributes(count, seed=11, held_out=held_out), range(count), 64)
    return judge.features(torch.from_numpy(real).permute(0, 3, 1, 2) / 127.5 - 1).numpy()


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


def _lines(panels: Mapping[str, Mapping[str, Sequence[Found]]], ticks: plots.Ticks, label: str):
    """Return the chart of means with their intervals."""
    means = {title: {key: [mean for mean, _ in found] for key, found in own.items()} for title, own in panels.items()}
    around = {title: {key: [b for _, b in found] for key, found in own.items()} for title, own in panels.items()}
    return plots.lines(means, ticks, label, bounds=around)


def _used(systems: Sequence[str]) -> list:
    """Return the files that a measurement reads: the systems' weights and the judge's."""
    return [*map(weights_of, systems), *sorted(path for path in JUDGE.iterdir() if path.is_file())]
