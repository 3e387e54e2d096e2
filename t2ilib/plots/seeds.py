"""Systems of several seeds side by side: every seed a point with its interval, their mean a stroke."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from t2ilib.errors import InputError
from t2ilib.plots.style import COLOURS, DPI, INK, MARKS, STYLE, WIDTH, Plot

Point = tuple[float, Sequence[float] | None]  # value, and its [low, high] where it has them
ROW, HEAD, FOOT = 0.36, 0.45, 0.4  # inches: a system, a row of panels beside its systems, the legend
SPREAD = 0.5  # of a system's height that its seeds take
SEED, MEAN = COLOURS[0], COLOURS[1]


def seeds(
    panels: Mapping[str, Mapping[str, Sequence[Point]]], beside: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """A panel per title, two in a row; in it a line per system, title -> system -> a point per seed, from above.

    A point is (value, [low, high]), or (value, None): then it has no bar. `beside`: name -> title -> a value drawn as
    a dotted line. InputError for no panels, a system without seeds, panels of different systems, and titles of none.
    """
    beside = beside or {}
    _check(panels, beside)
    systems = list(next(iter(panels.values())))
    rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, rows * (ROW * len(systems) + HEAD) + FOOT)
        figure = Plot(figsize=size, dpi=DPI, layout="constrained")
        places = figure.subplots(rows, min(2, len(panels)), squeeze=False, sharey=True)
        for axes, (title, series) in zip(places.flatten(), panels.items(), strict=False):
            for place, (name, points) in enumerate(series.items()):
                figure.numbers += [{"panel": title, **row} for row in _system(axes, place, name, points)]
            for name, values in beside.items():
                if title in values:
                    axes.axvline(values[title], color=INK, linestyle=":", linewidth=1.5)
                    figure.note({"panel": title, "series": name}, value=[values[title]])
            axes.set_title(title)
        for axes in places.flatten()[len(panels) :]:
            axes.set_axis_off()
        places[0, 0].set_yticks(range(len(systems)), systems)
        places[0, 0].set_ylim(len(systems) - 0.5, -0.5)
        figure.legend(handles=_samples(beside), loc="outside lower left", ncols=4)
    return figure


def _system(axes: Axes, place: int, name: str, points: Sequence[Point]) -> list[dict]:
    """Draw a system at its place; return the rows that say what was drawn: its seeds, then their mean."""
    values = [value for value, _ in points]
    heights = place + SPREAD * (np.arange(len(points)) / max(len(points) - 1, 1) - (0.5 if len(points) > 1 else 0))
    rows = []
    for number, ((value, bounds), height) in enumerate(zip(points, heights, strict=True)):
        axes.plot(value, height, MARKS[0], color=SEED, markersize=4)
        low, high = bounds or (None, None)
        if bounds:
            axes.hlines(height, low, high, colors=SEED, linewidth=1, alpha=0.7)
        rows.append({"series": name, "seed": number, "value": value, "low": low, "high": high})
    mean = float(np.mean(values))
    axes.vlines(mean, place - 0.42, place + 0.42, colors=MEAN, linewidth=2)
    return [*rows, {"series": name, "seed": "mean", "value": mean}]


def _samples(beside: Mapping) -> list[Line2D]:
    """Return the samples of the legend."""
    upright = {"linewidth": 0, "marker": "|", "markersize": 12, "markeredgewidth": 2}
    return [
        Line2D([], [], color=SEED, marker=MARKS[0], linewidth=1, markersize=4, label="a seed, 95 % interval"),
        Line2D([], [], color=MEAN, label="mean of the seeds", **upright),
        *(Line2D([], [], color=INK, linestyle=":", linewidth=1.5, label=name) for name in beside),
    ]


def _check(panels: Mapping, beside: Mapping[str, Mapping]) -> None:
    """Raise InputError for what cannot be drawn."""
    if not panels or not all(panels.values()):
        raise InputError("panels: none given, or one without systems; give at least one of each")
    systems = list(next(iter(panels.values())))
    for title, series in panels.items():
        if list(series) != systems:
            told = f"{', '.join(series)}, where others show {', '.join(systems)}"
            raise InputError(f"{title}: shows {told}; give every panel the same systems")
        for name, points in series.items():
            if not points:
                raise InputError(f"{title}, {name}: no seeds; give at least one")
    for name, values in beside.items():
        if unknown := [title for title in values if title not in panels]:
            raise InputError(f"{name}: no panel {', '.join(unknown)}; the panels are {', '.join(panels)}")
