"""Toy birds that answer captions without a network: what a dumb painter reaches, and what a perfect one would.

A number means little alone. Beside chance stand birds of one colour, which show the loudest thing that a caption says
and nothing else, and birds that show all that it says.
"""

from collections.abc import Sequence

import numpy as np

from t2ilib.data.captioned import CaptionedImages
from t2ilib.data.toy import ATTRIBUTES, COLOURS, HELD_OUT, parse, render, sample_attributes

LOUD = ("body", "size", "perch", "background")  # what a painter gets right who looks at nothing small
COLOURED = [list(ATTRIBUTES).index(name) for name in ("body", "wing", "belly", "crown")]  # the plumage's columns
FIRST = 1 << 20  # of the renderer's seeds: the data set's own are hashes


def faithful_birds(captions: Sequence[str], crowd: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return rows (N, A) of birds that show all that their captions mention; what they leave open is drawn by `seed`.

    It is drawn as in `crowd`, rows (M, A) of birds of that kind: the colours, which depend on each other, together from
    the birds there that have the colours mentioned; all else is even, and so are colours that nobody there has.
    """
    rng, rows = np.random.default_rng(seed), sample_attributes(len(captions), seed)
    for row, caption in zip(rows, captions, strict=True):
        told = {list(ATTRIBUTES).index(name): ATTRIBUTES[name].index(value) for name, value in parse(caption).items()}
        fits = np.ones(len(crowd), dtype=bool)
        for column in COLOURED:
            fits &= (column not in told) | (crowd[:, column] == told.get(column))
        if fits.any():
            row[COLOURED] = rng.choice(crowd[fits])[COLOURED]
        row[list(told)] = list(told.values())
    return rows


def one_coloured_birds(captions: Sequence[str], seed: int = 0) -> np.ndarray:
    """Return rows (N, A) of birds in the body's colour from crown to belly, with the size and the place mentioned.

    All else, and what captions leave open, is drawn evenly by `seed`: bill, patterns, the bill's length.
    """
    rows = sample_attributes(len(captions), seed)
    for row, caption in zip(rows, captions, strict=True):
        for name, value in parse(caption).items():
            if name in LOUD:
                row[list(ATTRIBUTES).index(name)] = ATTRIBUTES[name].index(value)
    rows[:, COLOURED] = rows[:, [list(ATTRIBUTES).index("body")]]
    return rows


def birds_like(dataset: CaptionedImages, count: int, seed: int = 0) -> np.ndarray:
    """Return rows (count, A) of other birds, of held-out species as many as the data set has in proportion."""
    held_out = {tuple(COLOURS.index(colour) for colour in pair) for pair in HELD_OUT}
    share = np.mean([tuple(row[:2]) in held_out for row in dataset.attributes.tolist()])
    new, known = (sample_attributes(count, FIRST + seed, kind) for kind in (True, False))
    return np.concatenate([new[: round(share * count)], known[round(share * count) :]])


def rendered(rows: np.ndarray, size: int, seed: int = 0, first: int = 0) -> np.ndarray:
    """Return pictures (N, size, size, 3) uint8 of the birds `rows` (N, A), the `first` ... of many by that seed."""
    return render(rows, FIRST * (seed + 1) + first + np.arange(len(rows)), size)
