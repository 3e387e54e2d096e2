"""Curves, bands, bars and lines of measured numbers."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from t2ilib.errors import InputError
from t2ilib.plots.style import DPI, HEIGHT, INK, STYLE, WIDTH, Plot, colours, dashes, looks
from t2ilib.plots.ticks import Ticks, spaced

Limits = Mapping[str, tuple[float, float]]  # title of a panel -> lowest and highest value of its axis

Bounds = Mapping[str, Mapping[str, Sequence[Sequence[float]]]]  # title -> series -> [low, high] of each value
Marked = Mapping[str, Mapping[str, Mapping[str, Sequence[bool]]]]  # name -> title -> series -> whether each value is so

LEGEND_ROW, FREE_ROWS = 0.2, 2  # inches that a row of a legend takes, and rows that a figure has room for
HANDLE, LETTER = 0.55, 0.075  # inches that a line's sample and a letter of its name take in a legend


def curves(
    records: Sequence[Mapping],
    terms: Sequence[str] | Mapping[str, Sequence[str]],
    smooth: float = 0.9,
    x: str = "step",
    labels: tuple[str, str] = ("step", "loss"),
    limits: Limits | None = None,
) -> Figure:
    """Records' `terms` over `x`: the raw values thin and pale, their exponential average (weight `smooth`, 0..1) thick.

    A mapping of terms, title -> terms, gives one panel per title. `limits` fixes the axes of panels that are compared.
    Records without a term are passed over; a term in no record raises `InputError` naming those there are.
    """
    panels = dict(terms) if isinstance(terms, Mapping) else {"": list(terms)}
    _check_given("terms", terms)
    for title, names in panels.items():
        _check_given(f"terms of {title}", names)
    _check_titles(panels, limits)
    longest = max(len(name) for names in panels.values() for name in names)
    columns = 2 if 2 * (HANDLE + LETTER * longest) < WIDTH / len(panels) else 1  # of a legend, below its panel
    rows = max(-(-len(names) // columns) for names in panels.values())
    height = HEIGHT * (0.85 if len(panels) > 1 else 1) + LEGEND_ROW * max(rows - FREE_ROWS, 0)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for colour, dash, name in zip(colours(len(names)), dashes(len(names)), names, strict=True):
                steps, values = _series(records, x, name)
                average = smoothed(values, smooth)
                axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
                axes.plot(steps, average, color=colour, linewidth=1.8, linestyle=dash, label=name)
                figure.note({"panel": title, "series": name}, **{x: steps, "value": values, "smoothed": average})
            axes.set(xlabel=labels[0], ylabel=labels[1], title=title, ylim=(limits or {}).get(title))
            axes.margins(x=0.02)
            _legend_below(axes, columns)
    return figure


def banded(
    runs: Mapping[str, Sequence[Sequence[Mapping]]],
    terms: Mapping[str, str],
    x: str = "step",
    limits: Limits | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A panel per term, title -> key of the records; a system's mean over its seeds, with the band that they span.

    `runs`: system -> the records of each seed, which have the term at the same places of `x`; otherwise InputError.
    `limits` fixes the axes of panels, by title; `beside`: name -> title -> a value drawn across as a dotted line.
    """
    _check_given("terms", terms)
    _check_titles(terms, limits, beside)
    for name, seeds in runs.items():
        _check_given(f"seeds of {name}", seeds)
        for records in seeds:
            _check_given(f"records of a seed of {name}", records)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * (0.75 if len(terms) > 1 else 0.9)), dpi=DPI, layout="constrained")
        row = figure.subplots(1, len(terms), squeeze=False)[0]
        for (title, key), axes in zip(terms.items(), row, strict=True):
            for look, (name, seeds) in zip(looks(len(runs)), runs.items(), strict=True):
                found = [_series(records, x, key) for records in seeds]
                if any(places != found[0][0] for places, _ in found):
                    raise InputError(f"{name}: its seeds have {key} at different places of {x}; measure them alike")
                places, values = found[0][0], np.array([values for _, values in found])
                mean, low, high = values.mean(0), values.min(0), values.max(0)
                axes.fill_between(places, low, high, color=look["color"], alpha=0.2, linewidth=0)
                axes.plot(places, mean, **look, linewidth=1.8, markersize=3.5, label=name)
                figure.note({"panel": title, "series": name}, **{x: places, "mean": mean, "low": low, "high": high})
            _draw_beside(axes, title, beside)
            axes.set(xlabel=x, title=title, ylim=(limits or {}).get(title))
        _legend_of_all(figure)
    return figure


def smoothed(values: Sequence[float], weight: float) -> np.ndarray:
    """Exponential moving average with the start's bias removed; a value that is not finite leaves it where it was."""
    average, total, result = 0.0, 0.0, []
    for value in np.asarray(values, dtype=np.float64):
        if np.isfinite(value):
            average, total = weight * average + (1 - weight) * value, weight * total + (1 - weight)
        result.append(average / total if total else np.nan)
    return np.array(result)


def bars(
    groups: Mapping[str, Mapping[str, float]],
    errors: Mapping[str, Mapping[str, float]] | None = None,
    label: str = "",
    reference: Mapping[str, float] | None = None,
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Bars of `groups`, series -> (category -> value), side by side; `reference`: dotted chance levels.

    Many categories, or long names, are written aslant. `limits` fixes the axis of values.
    """
    _check_given("groups", groups)
    categories = list(dict.fromkeys(category for series in groups.values() for category in series))
    width = 0.8 / len(groups)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * 0.85), dpi=DPI, layout="constrained")
        axes = figure.subplots()
        for index, (name, series) in enumerate(groups.items()):
            places = np.arange(len(categories)) - 0.4 + width * (index + 0.5)
            values = [series.get(category, np.nan) for category in categories]
            spread = [errors.get(name, {}).get(category, np.nan) for category in categories] if errors else None
            axes.bar(places, values, width * 0.92, yerr=spread, ecolor=INK, label=name, error_kw={"elinewidth": 1})
            errors_of = [np.nan] * len(values) if spread is None else spread
            figure.note({"series": name}, category=categories, value=values, error=errors_of)
        if reference:
            at = [index for index, category in enumerate(categories) if category in reference]
            levels = [reference[categories[index]] for index in at]
            axes.hlines(levels, np.array(at) - 0.42, np.array(at) + 0.42, colors=INK, linestyles=":", label="chance")
            figure.note({"series": "chance"}, category=[categories[index] for index in at], value=levels)
        aslant = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len("".join(categories)) > 60 else {}
        axes.set_xticks(range(len(categories)), categories, **aslant)
        axes.set(ylabel=label, ylim=limits)
        axes.grid(visible=False, axis="x")
        if len(groups) > 1 or reference:
            figure.legend(loc="outside upper left", ncols=len(groups) + 1)
    return figure


def lines(  # noqa: PLR0913
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    ticks: Sequence | Ticks,
    label: str = "",
    limits: Limits | None = None,
    bounds: Bounds | None = None,
    beside: Mapping[str, Mapping[str, float]] | None = None,
    *,
    hollow: Marked | None = None,
) -> Figure:
    """One panel per title, title -> (series -> values), over `ticks` that bear the axis' `label`.

    Panels stand in rows of two. Plain ticks are evenly spaced, for settings that are no numbers; numbers stand at their
    own places as `Ticks`. `limits` fixes the axes of panels, by title. `bounds`, title -> series -> [low, high] of each
    value, are drawn as bars; `beside` as in `banded`. `hollow`, name -> title -> series -> whether, gives values open
    markers, which a legend names.
    """
    _check_given("panels", panels)
    _check_titles(panels, limits, beside)
    _check_titles(panels, None, hollow)
    rows, ticks = -(-len(panels) // 2), spaced(ticks)
    with matplotlib.rc_context(STYLE):
        height = HEIGHT * (0.45 + 0.4 * rows) + (2 * LEGEND_ROW if hollow else 0)
        figure = Plot(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
        places = figure.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
        for axes, (title, series) in zip(places, panels.items(), strict=False):
            ticks.put_on(axes)
            for look, (name, values) in zip(looks(len(series)), series.items(), strict=True):
                joined = ticks.joined
                axes.plot(ticks.places[:joined], values[:joined], **look, linewidth=1.8, markersize=4, label=name)
                if ticks.alone:
                    axes.plot(ticks.places[joined:], values[joined:], **look, linewidth=0, markersize=4)
                around = _draw_bounds(axes, ticks.places, (bounds or {}).get(title, {}).get(name), look["color"])
                given = {kind: own[title][name] for kind, own in (hollow or {}).items() if name in own.get(title, {})}
                marked = {kind: _draw_open(axes, ticks.places, values, own, look) for kind, own in given.items()}
                columns = {label or "tick": ticks.labels, "value": values}
                figure.note({"panel": title, "series": name}, **columns, **around, **marked)
            _draw_beside(axes, title, beside)
            axes.set(title=title, xlabel=label, ylim=(limits or {}).get(title))
            if len(series) > 1 or any(title in values for values in (beside or {}).values()):
                _legend_below(axes)
        if shown := [kind for kind in hollow or {} if any(row.get(kind) for row in figure.numbers)]:
            figure.legend(handles=[_open_marker(kind) for kind in shown], loc="outside lower left")
        for axes in places[len(panels) :]:
            axes.set_axis_off()
    return figure


def progress(
    runs: Mapping[str, Sequence[Sequence[Mapping]]],
    terms: Mapping[str, str],
    along: Mapping[str, tuple[str, float]],
    beside: Mapping[str, Mapping[str, float]] | None = None,
    hollow: str = "",
) -> Figure:
    """A column of panels per term (title -> key of the records), a row per axis (label -> key and its unit).

    `runs`: system -> the records of each of its seeds; a system has one colour, a seed one kind of dashes. `beside`:
    name -> title -> a value that is drawn across as a dotted line. A record's KEY/interval, [low, high], is drawn as a
    bar; a true KEY/`hollow` gives it an open marker, which the legend calls `hollow`. Panels of a row share their axis.
    """
    _check_given("terms", terms)
    _check_given("along", along)
    _check_titles(terms, None, beside)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * 0.62 * len(along) + 0.3), dpi=DPI, layout="constrained")
        grid = figure.subplots(len(along), len(terms), squeeze=False, sharex="row")
        kinds = dashes(max(map(len, runs.values()), default=0))
        for number, ((label, (x, unit)), row) in enumerate(zip(along.items(), grid, strict=True)):
            for (title, key), axes in zip(terms.items(), row, strict=True):
                for look, (name, seeds) in zip(looks(len(runs)), runs.items(), strict=True):
                    for seed, (records, dash) in enumerate(zip(seeds, kinds, strict=False)):
                        places, values = _series(records, x, key)
                        places = [place / unit for place in places]
                        drawn = {**look, "linestyle": dash, "linewidth": 1.4, "markersize": 3}
                        axes.plot(places, values, **drawn, label="" if seed else name)
                        own = [record for record in records if x in record and key in record]
                        given = [record.get(f"{key}/interval") for record in own]
                        around = _draw_bounds(axes, places, given if all(given) else None, look["color"])
                        if hollow:
                            which = [bool(record.get(f"{key}/{hollow}")) for record in own]
                            around[hollow] = _draw_open(axes, places, values, which, look)
                        where = {"panel": title, "series": name, "line": seed, "axis": label}
                        figure.note(where, place=places, value=values, **around)
                _draw_beside(axes, title, beside)
                axes.set(xlabel=label, title="" if number else title)
        look = {"color": INK, "linewidth": 1.4}
        others = [Line2D([], [], linestyle=dash, label=f"seed {seed}", **look) for seed, dash in enumerate(kinds)]
        if any(row.get(hollow) for row in figure.numbers):
            others.append(_open_marker(hollow))
        _legend_of_all(figure, others[1:])
    return figure


def _series(records: Sequence[Mapping], x: str, name: str) -> tuple[list[float], list[float]]:
    pairs = [(record[x], record[name]) for record in records if x in record and name in record]
    if not pairs:
        known = sorted({key for record in records for key in record})
        raise InputError(f"{name}: in no record; there are {', '.join(known) or 'no records'}")
    return [pair[0] for pair in pairs], [float(pair[1]) for pair in pairs]


def _draw_bounds(axes: Axes, places: Sequence[float], bounds: Sequence | None, colour: str) -> dict[str, Sequence]:
    """Draw [low, high] around each value as a thin bar; return them as columns, none where there are no bounds."""
    if bounds is None:
        return {}
    low, high = zip(*bounds, strict=True)
    axes.vlines(places, low, high, colors=colour, linewidth=1, alpha=0.7)
    return {"low": low, "high": high}


def _draw_open(
    axes: Axes, places: Sequence[float], values: Sequence[float], which: Sequence[bool], look: Mapping
) -> list[int]:
    """Draw open markers over those of the values that are marked; return the marks as 0 and 1."""
    found = [(place, value) for place, value, own in zip(places, values, which, strict=True) if own]
    if found:
        axes.plot(*zip(*found, strict=True), **look, linewidth=0, markersize=4, markerfacecolor="white")
    return [int(own) for own in which]


def _open_marker(name: str) -> Line2D:
    """Return the legend's sample of open markers."""
    return Line2D([], [], marker="o", linewidth=0, markersize=4, color=INK, markerfacecolor="white", label=name)


def _draw_beside(axes: Axes, title: str, beside: Mapping[str, Mapping[str, float]] | None) -> None:
    """Draw what stands beside a panel's series as dotted lines across, each darker or lighter than the one before."""
    for number, (name, values) in enumerate((beside or {}).items()):
        if title in values:
            shade = INK if number % 2 == 0 else "#9aa0a6"
            axes.axhline(values[title], color=shade, linestyle=":", linewidth=1.5, label=name)
            axes.figure.note({"panel": title, "series": name}, value=[values[title]])


def _legend_below(axes: Axes, columns: int = 2) -> None:
    """Name the lines of a panel below it, where no curve runs."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)


def _legend_of_all(figure: Figure, more: Sequence[Line2D] = ()) -> None:
    """Name the lines of all panels, each once, below, and `more` lines behind them."""
    found = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    found |= {line.get_label(): line for line in more}
    figure.legend(found.values(), found, loc="outside lower left", ncols=min(len(found), 4))


def _check_given(what: str, given: Mapping | Sequence) -> None:
    """Raise InputError where there is nothing to be drawn."""
    if not given:
        raise InputError(f"{what}: none given; give at least one")


def _check_titles(panels: Mapping, limits: Limits | None, beside: Mapping[str, Mapping] | None = None) -> None:
    """Raise InputError where limits or values are given for a panel that is not there."""
    unknown = {"limits": [title for title in limits or {} if title not in panels]}
    for name, values in (beside or {}).items():  # one mapping may serve several figures
        unknown[name] = [] if any(title in panels for title in values) else list(values)
    for what, titles in unknown.items():
        if titles:
            raise InputError(f"{what}: no panel {', '.join(titles)}; the panels are {', '.join(panels)}")
