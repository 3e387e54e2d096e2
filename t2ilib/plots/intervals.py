"""Measured numbers over what was changed, each with its interval."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t2ilib.errors import InputError
from t2ilib.plots.style import COLOURS, DPI, HEIGHT, INK, STYLE, WIDTH, Plot

Point = tuple[float, float, float, float]  # place, value, lowest and highest bound
COLUMNS = 3  # panels that stand side by side at most
MARKERS = "os^Dv<>P"


def intervals(
    panels: Mapping[str, Mapping[str, Sequence[Point]]],
    across: str | Mapping[str, str] = "",
    up: str = "",
    *,
    logarithmic: bool = False,
    limits: Mapping[str, tuple[float, float]] | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """One panel per title, title -> (series -> points): a line through the values, a band of their intervals.

    A point is (place, value, low, high). `across` labels the axis of places, of all panels or by title, which is
    `logarithmic` or not; `up` that of values, whose `limits` are given by title. `beside`: name -> title -> a value
    drawn across as a dotted line. InputError for no points, bounds that do not hold their value, and titles of no
    panel.
    """
    _check(panels, across, limits or {}, beside or {})
    rows = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, HEIGHT * (0.2 + (0.55 if len(panels) > 1 else 0.7) * rows))
        figure = Plot(figsize=size, dpi=DPI, layout="constrained")
        places = figure.subplots(rows, min(COLUMNS, len(panels)), squeeze=False).flatten()
        for axes, (title, series) in zip(places, panels.items(), strict=False):
            _panel(axes, series)
            for number, (name, values) in enumerate((beside or {}).items()):
                if title in values:
                    look = {"color": INK, "linestyle": (":", "--", "-.")[number % 3], "linewidth": 1.3}
                    axes.axhline(values[title], label=name, **look)
            axes.set(title=title, xlabel=across if isinstance(across, str) else across.get(title, ""))
            axes.set(ylim=(limits or {}).get(title))
            if logarithmic:
                _logarithmic(axes, series)
        for axes in places[:: min(COLUMNS, len(panels))]:
            axes.set_ylabel(up)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        _legend(figure)
    return figure


def _panel(axes: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    for number, (name, points) in enumerate(series.items()):
        place, value, low, high = np.array(points, dtype=float).T
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        axes.fill_between(place, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(place, value, color=colour, marker=marker, linewidth=1.6, markersize=4, label=name)


def _logarithmic(axes: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    """Make the axis of places logarithmic, with their own numbers on it and no others."""
    places = sorted({point[0] for points in series.values() for point in points})
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g}" for place in places])
    axes.minorticks_off()


def _legend(figure: Figure) -> None:
    """Name the lines of all panels below, each once, where there is more than one."""
    found: dict[str, object] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if len(found) > 1:
        figure.legend(found.values(), found, loc="outside lower left", ncols=4)


def _check(panels: Mapping, across: str | Mapping, limits: Mapping, beside: Mapping[str, Mapping]) -> None:
    """Raise InputError for what cannot be drawn."""
    if not panels or not all(panels.values()):
        raise InputError("panels: none given, or one without series; give at least one of each")
    for title, series in panels.items():
        for name, points in series.items():
            found = np.array(points, dtype=float)
            if found.ndim != 2 or found.shape[1] != 4:
                raise InputError(f"{title}, {name}: {found.shape}; give points (place, value, low, high)")
            if not ((found[:, 2] <= found[:, 1]) & (found[:, 1] <= found[:, 3])).all():
                raise InputError(f"{title}, {name}: a value lies outside its bounds; give (place, value, low, high)")
    known = {"limits": limits, "across": {} if isinstance(across, str) else across}
    known |= {name: values for name, values in beside.items() if not set(values) & set(panels)}
    for what, titles in known.items():
        if unknown := [title for title in titles if title not in panels]:
            raise InputError(f"{what}: no panel {', '.join(unknown)}; the panels are {', '.join(panels)}")
