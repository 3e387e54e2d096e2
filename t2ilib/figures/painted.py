"""Sheets of pictures: drawn anew from shipped weights, or kept by full-length runs. They stay PNG.

The papers show a grid, a way from one caption to another with the noise held (Reed et al. 2016, figure 8), and ways
from one noise to another with the caption held. Every first picture of a seed is shown, none is chosen.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from t2ilib import plots, tables
from t2ilib.data import toy
from t2ilib.explore.studio import arc
from t2ilib.features import Text
from t2ilib.figures.saved import save, seen, weights_of
from t2ilib.pictures import to_uint8
from t2ilib.sampling import Sampler, load_sampler

PARTS = ("body", "wing", "belly", "perch", "background")  # of a bird, that captions of the figures mention
STEPS = 8  # pictures on a way, its ends among them
Drawn = tuple[plots.Sheet, list[dict]]  # a sheet, and the rows of its CSV


def captions_of(count: int, seed: int = 3, parts: tuple[str, ...] = PARTS, held_out: bool = True) -> list[str]:
    """Return so many captions of held-out species, or of those that training shows."""
    rows = toy.sample_attributes(count, seed=seed, held_out=held_out)
    return [toy.compose(row, parts, number) for number, row in enumerate(rows)]


def toy_birds(name: str) -> None:
    """Sixty-four toy birds as the renderer draws them."""
    rows = toy.sample_attributes(64, seed=7)
    told = [{"row": k // 8, "column": k % 8, **toy.describe(row), "seed": k} for k, row in enumerate(rows)]
    save(name, plots.contact_sheet(toy.render(rows, range(64), 64), columns=8), rows=told)


def generated(weights: str, name: str) -> None:
    """Four pictures each of six held-out captions, drawn by shipped weights: a column per caption, a row per noise."""
    _save(name, sheet(load_sampler(weights), captions_of(6), weights_of(weights)), weights)


def sheet(sampler: Sampler, captions: list[str], weights: Path, each: int = 4) -> Drawn:
    """Return `each` pictures of every caption: a column per caption, a row per noise of seed 0."""
    columns = len(captions)
    pictures = sampler.sample(captions, seed=0, per_caption=each)
    across = [pictures[each * column + row] for row in range(each) for column in range(columns)]
    labels = [*[""] * ((each - 1) * columns), *captions]
    noises = [row for row in range(each) for _ in captions]
    rows = seen(weights, captions * each, columns, seed=[0] * len(across), noise=noises)
    return plots.grid(stack(across), labels, columns=columns), rows


def samples(run: str, name: str) -> None:
    """The last grid of a full-length run: a column per caption, a row per noise."""
    folder = tables.RUNS / run
    pictures, captions = drawn(folder)
    labels = [""] * (len(pictures) - len(captions)) + captions
    rows = [
        {"row": place // len(captions), "column": place % len(captions), "caption": captions[place % len(captions)]}
        | {"run": run}
        for place in range(len(pictures))
    ]
    sources = [folder / "samples.png", folder / "captions.txt"]
    save(name, plots.grid(pictures, labels, columns=len(captions)), sources, rows)


def drawn(folder: Path) -> tuple[np.ndarray, list[str]]:
    """Return the pictures (N, H, W, 3) of a run's kept grid, noise by noise, and the captions of each such row."""
    captions = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    sheet = Image.open(folder / "samples.png").convert("RGB")
    side = (sheet.width + 2) // len(captions) - 2
    rows = (sheet.height + 2) // (side + 2)
    boxes = [(c * (side + 2), r * (side + 2)) for r in range(rows) for c in range(len(captions))]
    return stack([sheet.crop((x, y, x + side, y + side)) for x, y in boxes]), captions


def text_ways(weights: str, name: str) -> None:
    """From one caption to another, the noise held: a row per pair."""
    captions = captions_of(8, seed=4, parts=("body", "wing", "background"), held_out=False)
    _save(name, between_captions(load_sampler(weights), captions, weights_of(weights)), weights)


def between_captions(sampler: Sampler, ends: list[str], weights: Path) -> Drawn:
    """Return ways between two captions each, a row per pair: sentence features along the straight line, noise held."""
    pairs = len(ends) // 2
    noise, pictures = _noise(sampler, pairs), []
    for row in range(pairs):
        first, last = sampler.encoder.encode(ends[2 * row : 2 * row + 2]).sentence
        between = torch.stack([torch.lerp(first, last, share) for share in torch.linspace(0, 1, STEPS)])
        pictures += list(sampler.generate(Text(between), noise[row].expand(STEPS, -1)))
    return _ways(weights, pictures, [f"{a} to {b}" for a, b in zip(ends[::2], ends[1::2], strict=True)], ends)


def noise_ways(weights: str, name: str) -> None:
    """From one noise to another, the caption held: a row per caption."""
    captions = captions_of(4, seed=6, parts=("body", "wing", "background"), held_out=False)
    _save(name, between_noises(load_sampler(weights), captions, weights_of(weights)), weights)


def between_noises(sampler: Sampler, captions: list[str], weights: Path) -> Drawn:
    """Return ways between two draws of noise each, a row per caption: along the arc, the caption held."""
    noise, pictures = _noise(sampler, 2 * len(captions)), []
    for row, caption in enumerate(captions):
        way = torch.stack([arc(noise[2 * row], noise[2 * row + 1], share) for share in torch.linspace(0, 1, STEPS)])
        sentence = sampler.encoder.encode([caption]).sentence
        pictures += list(sampler.generate(Text(sentence.expand(STEPS, -1)), way))
    return _ways(weights, pictures, captions, [text for caption in captions for text in (caption, "")])


def one_caption(weights: str, name: str) -> None:
    """One caption of a held-out species, thirty-two noises."""
    caption = captions_of(1, seed=5, parts=("body", "wing", "belly"))[0]
    count, columns = 32, 8
    pictures = load_sampler(weights).sample([caption], seed=0, per_caption=count)
    rows = seen(weights_of(weights), [caption] * count, columns, seed=[0] * count, noise=list(range(count)))
    save(name, plots.grid(stack(pictures), None, columns, title=caption), [weights_of(weights)], rows)


def stack(pictures) -> np.ndarray:
    """Return pictures of one size, from PIL or as tensors (3, H, W) in [-1, 1], as uint8 (N, H, W, 3)."""
    return np.stack([np.asarray(p) if isinstance(p, Image.Image) else to_uint8(p[None])[0] for p in pictures])


def _save(name: str, drawn: Drawn, weights: str) -> None:
    figure, rows = drawn
    save(name, figure, [weights_of(weights)], rows)


def _noise(sampler: Sampler, count: int) -> torch.Tensor:
    """Return the first noises (count, Z) of seed 0, where the sampler paints."""
    return sampler.noise(count, torch.Generator().manual_seed(0)).to(sampler.device)


def _ways(weights: Path, pictures: list, told: list[str], ends: list[str]) -> Drawn:
    """Return rows of `STEPS` pictures; `ends` are the texts below the first and the last of each row."""
    last = STEPS - 1
    places = [(row, step) for row in range(len(told)) for step in range(STEPS)]
    below = [ends[2 * row + (step > 0)] if step in (0, last) else "" for row, step in places]
    shares = [round(step / last, 4) for _, step in places]
    rows = seen(weights, [told[row] for row, _ in places], STEPS, seed=[0] * len(pictures), share=shares)
    return plots.grid(stack(pictures), below, columns=STEPS), rows
