"""The two figures of a comparison: what the systems paint, and how good they were on the way."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from t2ilib import plots
from t2ilib.side_by_side.rows import Row

NAMES = {"attribute_accuracy": "attributes", "r_precision": "R-precision", "clip_score": "CLIP score"}
WHOLE = {"fd": "FD", "fid": "FID", "kid": "KID", "clip": "CLIP", "lpips": "LPIPS", "ssim": "SSIM", "topiq": "TOPIQ"}
LESS = {"fd", "fid", "kid", "lpips"}  # words in names of numbers of which less is better
ALONG = {"pictures seen, thousands": ("images", 1e3), "minutes of training": ("seconds", 60)}
LETTERS = 100  # of a line across a figure
BLANK = 242  # grey of pictures that nobody painted


def title_of(metric: str) -> str:
    """Return a metric's name as tables and figures show it."""
    return NAMES.get(metric) or " ".join(WHOLE.get(word, word) for word in metric.split("_"))


def grid(rows: Sequence[Row], captions: Sequence[str]) -> Figure:
    """Return the pictures of all systems: a row each, a column per caption; smaller pictures are enlarged.

    The row of a system without weights says so.
    """
    side = max((row.pictures.shape[1] for row in rows if row.pictures is not None), default=1)
    blank = np.full((len(captions), side, side, 3), BLANK, dtype=np.uint8)
    images = np.concatenate([blank if row.pictures is None else _enlarged(row.pictures, side) for row in rows])
    figure = plots.sheet(images, columns=len(captions), captions=captions, rows=[row.name for row in rows])
    for number, row in enumerate(rows):
        if row.missing:
            own = [axes.get_position() for axes in figure.axes[number * len(captions) :][: len(captions)]]
            across, up = (own[0].x0 + own[-1].x1) / 2, (own[0].y0 + own[0].y1) / 2
            figure.text(across, up, row.missing, ha="center", va="center", fontsize=8, wrap=True)
    return figure


def _enlarged(pictures: np.ndarray, side: int) -> np.ndarray:
    """Return pictures (N, H, W, 3) of this side, without new colours between the old ones."""
    if pictures.shape[1] == side:
        return pictures
    resized = [Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST) for picture in pictures]
    return np.stack([np.asarray(picture) for picture in resized])


def quality(rows: Sequence[Row], beside: Sequence[Row], metrics: Sequence[str], differing: Sequence[str]) -> Figure:
    """Return a row of panels per number: over pictures seen and over minutes, a colour per system.

    Across runs what birds in one colour reach, where all runs were measured alike.
    """
    lower = {metric: ", less is better" if LESS & set(metric.split("_")) else "" for metric in metrics}
    terms = {title_of(metric) + lower[metric]: metric for metric in metrics}
    plain = [row for row in beside if row.name == "one colour"]
    across = {}
    if len(plain) == 1:
        found = {title: plain[0].numbers.get(metric) for title, metric in terms.items()}
        across = {"one colour": {title: number[0] for title, number in found.items() if number}}
    figure = plots.averages({row.name: row.points for row in rows}, terms, ALONG, across, hollow="earlier")
    if differing:
        told = f"These runs do not compare: they differ in {', '.join(differing)}"
        figure.suptitle(textwrap.fill(told, LETTERS), fontsize=9)
    return figure
