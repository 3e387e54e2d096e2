"""Systems over what they have seen or spent: every seed a thin line, their mean a thick one."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from t2ilib.errors import InputError
from t2ilib.plots.style import COLOURS, DPI, INK, STYLE, WIDTH, Plot

PANEL, LEGEND, LABELS = 1.45, 0.24, 0.55  # inches: a row of panels, a row of the legend, the axes' labels
MARKERS = "os^Dv<>P"  # one for each time that the colours begin again
Seeds = Sequence[Sequence[Mapping]]  # per seed its records


def averages(
    runs: Mapping[str, Seeds],
    terms: Mapping[str, str],
    along: Mapping[str, tuple[str, float]],
    beside: Mapping[str, Mapping[str, float]] | None = None,
    hollow: str = "",
) -> Figure:
    """A row of panels per term (title -> key of the records), a column per axis (label -> key and its unit).

    `runs`: system -> the records of each of its seeds; a system has one colour. The first axis says which records of
    the seeds belong together: the mean is of those that all seeds have. `beside`: name -> title -> a value that is
    drawn across as a dashed line. Records with a true entry `hollow` have open markers. InputError where a term is in
    no record of any system.
    """
    if not (runs and terms and along):
        raise InputError("averages: runs, terms or axes are missing; give at least one of each")
    rows = -(-(len(runs) + len(beside or {})) // 4)
    height = PANEL * len(terms) + LEGEND * rows + LABELS
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        panels = figure.subplots(len(terms), len(along), squeeze=False, sharex="col", sharey="row")
        places = [next(iter(along.values())), *along.values()]
        for (title, key), row in zip(terms.items(), panels, strict=True):
            if not any(key in record for seeds in runs.values() for records in seeds for record in records):
                raise InputError(f"{title}: {key} is in no record; leave it out")
            for axes, axis in zip(row, places[1:], strict=True):
                for look, seeds in zip(_looks(len(runs)), runs.values(), strict=True):
                    _system(axes, seeds, key, (places[0], axis), (*look, hollow))
                for values in (beside or {}).values():
                    if title in values:
                        axes.axhline(values[title], color=INK, linestyle="--", linewidth=1.2)
            row[0].set_title(title)
        for axes, label in zip(panels[-1], along, strict=True):
            axes.set_xlabel(label)
            axes.set_xlim(left=0)
        _legend(figure, runs, beside or {})
    return figure


def _system(axes: Axes, seeds: Seeds, key: str, axes_of: tuple, look: tuple[str, str, str]) -> None:
    """Draw a system's seeds thin and their mean thick; of the two axes the first says which records belong together."""
    (place, _), (x, unit) = axes_of
    colour, marker, hollow = look
    found = [{record[place]: record for record in records if key in record} for records in seeds]
    if len(found) > 1:
        for records in found:
            own = list(records.values())
            axes.plot([r[x] / unit for r in own], [r[key] for r in own], color=colour, linewidth=0.7, alpha=0.6)
    common = [where for where in found[0] if all(where in records for records in found)]
    means = [[np.mean([records[at][name] for records in found]) for at in common] for name in (x, key)]
    across = [value / unit for value in means[0]]
    axes.plot(across, means[1], color=colour, linewidth=2)
    for at, left, up in zip(common, across, means[1], strict=True):
        filled = not any(records[at].get(hollow) for records in found)
        axes.plot(left, up, marker, color=colour, markersize=4.5, markerfacecolor=colour if filled else "white")


def _looks(count: int) -> list[tuple[str, str]]:
    """Return a colour and a marker for each of so many systems; no two are alike before both have run out."""
    turns = [divmod(number, len(COLOURS)) for number in range(count)]
    return [(COLOURS[place], MARKERS[turn % len(MARKERS)]) for turn, place in turns]


def _legend(figure: Figure, runs: Mapping, beside: Mapping) -> None:
    """Name systems and what stands beside them, each once, below."""
    look = {"linewidth": 2, "markersize": 4.5}
    lines = [Line2D([], [], color=colour, marker=marker, **look) for colour, marker in _looks(len(runs))]
    lines += [Line2D([], [], color=INK, linestyle="--", linewidth=1.2) for _ in beside]
    figure.legend(lines, [*runs, *beside], loc="outside lower left", ncols=4)
