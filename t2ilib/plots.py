"""Figures in one style: picture grids, training curves, bars; and the one door through which figures are saved.

Figures are `matplotlib` figures made without `pyplot`: nothing is drawn twice in a notebook, nothing stays open. The
same content gives the same bytes: no dates, no versions.
"""

import inspect
import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from t2ilib.errors import InputError
from t2ilib.files import ROOT, atomic, sha256, write_json
from t2ilib.pictures import to_uint8
from t2ilib.provenance import relative

WIDTH, HEIGHT, DPI = 7.0, 4.0, 100  # inches, inches, dots per inch
LIMIT = 300_000  # bytes a saved figure may take before its colours, then its size, are reduced
INK, GRID = "#33383d", "#e3e6e8"
COLOURS = ("#3b6ea5", "#d1733f", "#4f9a6b", "#8a6bb0", "#b8504f", "#8c7a5b", "#4aa3b5", "#7c828a")
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#a9b0b6",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}


class Plot(Figure):
    """A figure that a notebook shows when it is a cell's value."""

    def _repr_png_(self) -> bytes:
        """In 64 colours: a notebook of twenty figures stays small, and the eye hardly sees it."""
        return _encoded(Image.open(io.BytesIO(png_bytes(self))).quantize(64, kmeans=1))


class Sheet(Plot):
    """A figure of pictures, which a notebook shows as JPEG: small, and colours stay true."""

    quality = 60

    def _repr_png_(self) -> None:
        """Leave it to the JPEG."""

    def _repr_jpeg_(self) -> bytes:
        """The pictures as JPEG."""
        buffer = io.BytesIO()
        Image.open(io.BytesIO(png_bytes(self))).convert("RGB").save(buffer, "JPEG", quality=self.quality, optimize=True)
        return buffer.getvalue()


def sheet(
    images,
    columns: int = 8,
    captions: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    quality: int | None = None,
) -> Sheet:
    """Pictures in rows of `columns`, at least 1.12 inches wide each; `images` as `to_uint8` takes them.

    `captions` stand below the columns, once; `rows` are names of the rows, at their left. `quality` (1 to 95) is that
    of the JPEG, by default `Sheet.quality`: small noisy pictures bear less of it.
    """
    images = to_uint8(images)
    columns = min(columns, len(images))
    count = -(-len(images) // columns)
    margin = 0.16 if rows else 0.0  # inches for the rows' names
    cell, gap = max((WIDTH - margin) / columns, 1.12), 0.04
    texts = _wrapped(captions or [], cell, letters=18)
    width, height = margin + columns * cell, count * cell + _footer(texts)
    with matplotlib.rc_context(STYLE):
        figure = Sheet(figsize=(width, height), dpi=DPI)
        figure.quality = quality or Sheet.quality
        for index, image in enumerate(images):
            row, column = divmod(index, columns)
            left, bottom = margin + column * cell + gap / 2, height - (row + 1) * cell + gap / 2
            axes = figure.add_axes((left / width, bottom / height, (cell - gap) / width, (cell - gap) / height))
            axes.imshow(image, interpolation="lanczos" if image.shape[0] < cell * DPI else "antialiased")
            axes.set_axis_off()
            if index >= len(images) - columns and column < len(texts):  # the lowest picture of its column
                axes.text(0, -0.02, texts[column], transform=axes.transAxes, fontsize=7, va="top", linespacing=1.1)
        for row, name in enumerate(rows or []):
            middle = (height - (row + 0.5) * cell) / height
            figure.text(0.07 / width, middle, name, rotation=90, fontsize=7.5, va="center", ha="center")
    return figure


def grid(images, captions: Sequence[str] | None = None, columns: int = 8, title: str | None = None) -> Sheet:
    """Pictures side by side, each with its caption in small print below; `images` as `to_uint8` takes them."""
    images = to_uint8(images)
    columns = min(columns, len(images))
    cell, gap, header = WIDTH / columns, 0.03, 0.3 if title else 0.0  # inches
    texts = _wrapped(captions, cell) if captions is not None else [""] * len(images)
    footers = [_footer(texts[first : first + columns]) for first in range(0, len(images), columns)]
    with matplotlib.rc_context(STYLE):
        height = header + sum(cell + footer for footer in footers)
        figure = Sheet(figsize=(WIDTH, height), dpi=DPI)
        for index, (image, text) in enumerate(zip(images, texts, strict=True)):
            row, column = divmod(index, columns)
            bottom = height - header - (row + 1) * cell - sum(footers[:row])
            box = (column * cell + gap / 2, bottom + gap / 2, cell - gap, cell - gap)
            axes = figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height))
            axes.imshow(image, interpolation="lanczos" if image.shape[0] * 1.5 < cell * DPI else "antialiased")
            axes.set_axis_off()
            axes.text(0, -0.02, text, transform=axes.transAxes, fontsize=6, va="top", linespacing=1.15)
        if title:
            figure.text(0.005, 1 - 0.08 / height, title, weight="bold", size=10, va="top")
    return figure


def curves(
    records: Sequence[Mapping],
    terms: Sequence[str] | Mapping[str, Sequence[str]],
    smooth: float = 0.9,
    x: str = "step",
    labels: tuple[str, str] = ("step", "loss"),
) -> Figure:
    """Records' `terms` over `x`: the raw values thin and pale, their exponential average (weight `smooth`, 0..1) thick.

    A mapping of terms, title -> terms, gives one panel per title. Records without a term are passed over; a term in no
    record raises `InputError` naming those there are.
    """
    panels = dict(terms) if isinstance(terms, Mapping) else {"": list(terms)}
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * (0.85 if len(panels) > 1 else 1)), dpi=DPI, layout="constrained")
        for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for colour, name in zip(_colours(len(names)), names, strict=True):
                steps, values = _series(records, x, name)
                axes.plot(steps, values, color=colour, linewidth=0.6, alpha=0.35)
                axes.plot(steps, smoothed(values, smooth), color=colour, linewidth=1.8, label=name)
            axes.set(xlabel=labels[0], ylabel=labels[1], title=title)
            axes.margins(x=0.02)
            axes.legend()
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
) -> Figure:
    """Bars of `groups`, series -> (category -> value), side by side; `reference`: dotted chance levels."""
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
        if reference:
            at = [index for index, category in enumerate(categories) if category in reference]
            levels = [reference[categories[index]] for index in at]
            axes.hlines(levels, np.array(at) - 0.42, np.array(at) + 0.42, colors=INK, linestyles=":", label="chance")
        axes.set_xticks(range(len(categories)), categories, fontsize=9 if len(categories) < 10 else 7.5)
        axes.set_ylabel(label)
        axes.grid(visible=False, axis="x")
        if len(groups) > 1 or reference:
            figure.legend(loc="outside upper left", ncols=len(groups) + 1)
    return figure


def lines(panels: Mapping[str, Mapping[str, Sequence[float]]], ticks: Sequence, label: str = "") -> Figure:
    """One panel per title, title -> (series -> values), over evenly spaced `ticks` that bear the axis' `label`.

    Panels stand in rows of two. For settings that do not lie on a line, as 0, 0.01, 0.1, 1, 4.
    """
    rows = -(-len(panels) // 2)
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * (0.45 + 0.4 * rows)), dpi=DPI, layout="constrained")
        places = figure.subplots(rows, min(2, len(panels)), squeeze=False).flatten()
        for axes, (title, series) in zip(places, panels.items(), strict=False):
            for colour, (name, values) in zip(_colours(len(series)), series.items(), strict=True):
                axes.plot(range(len(ticks)), values, "o-", color=colour, linewidth=1.8, markersize=4, label=name)
            axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
            axes.set(title=title, xlabel=label)
            if len(series) > 1:
                axes.legend()
        for axes in places[len(panels) :]:
            axes.set_axis_off()
    return figure


def progress(
    runs: Mapping[str, Sequence[Sequence[Mapping]]],
    terms: Mapping[str, str],
    along: Mapping[str, tuple[str, float]],
    beside: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A column of panels per term (title -> key of the records), a row per axis (label -> key and its unit).

    `runs`: system -> the records of each of its seeds; a system has one colour, a seed one line. `beside`: name ->
    title -> a value that is drawn across as a dotted line.
    """
    with matplotlib.rc_context(STYLE):
        figure = Plot(figsize=(WIDTH, HEIGHT * 0.62 * len(along) + 0.3), dpi=DPI, layout="constrained")
        grid = figure.subplots(len(along), len(terms), squeeze=False)
        for number, ((label, (x, unit)), row) in enumerate(zip(along.items(), grid, strict=True)):
            for (title, key), axes in zip(terms.items(), row, strict=True):
                for colour, (name, seeds) in zip(_colours(len(runs)), runs.items(), strict=True):
                    for seed, records in enumerate(seeds):
                        places, values = _series(records, x, key)
                        drawn = {"color": colour, "linewidth": 1.5, "markersize": 3, "label": "" if seed else name}
                        axes.plot([place / unit for place in places], values, "o-", **drawn)
                for name, values in (beside or {}).items():
                    axes.axhline(values[title], color="0.2", linestyle=":", linewidth=1.5, label=name)
                axes.set(xlabel=label, title="" if number else title)
        figure.legend(
            *grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=len(runs) + len(beside or {})
        )
    return figure


def contact_sheet(images, columns: int = 8, path: str | Path | None = None, gap: int = 2) -> Image.Image:
    """All pictures in one, pixel by pixel, `gap` white pixels apart; written to `path` (PNG) when one is given."""
    images = to_uint8(images)
    count, height, width, _ = images.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = (index // columns) * (height + gap), (index % columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    picture = Image.fromarray(sheet)
    if path is not None:
        _write_bytes(path, png_bytes(picture))
    return picture


def png_bytes(figure: Figure | Image.Image) -> bytes:
    """The PNG of a figure or picture, the same bytes for the same content."""
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        figure = Image.open(buffer)
    return _encoded(figure.convert("RGB"))


def save_figure(
    figure: Figure | Image.Image,
    name: str,
    by: str,
    sources: Sequence[str | Path] = (),
    folder: str | Path = ROOT / "figures",
) -> Path:
    """Write `<name>.png` to `folder` (default `figures/`) and its entry in `manifest.json`; return the picture's path.

    `by` is the command that rebuilds the figure; `sources` are the files it was drawn from, kept with their SHA-256.
    Pictures above 300 KB are reduced to 256 colours, then in size.
    """
    folder = Path(folder)
    content = _within_limit(png_bytes(figure))
    path = _write_bytes(folder / f"{name}.png", content)
    manifest = folder / "manifest.json"
    entries = json.loads(manifest.read_text(encoding="utf-8")) if manifest.is_file() else {}
    size = Image.open(io.BytesIO(content)).size
    entries[name] = {"by": by, "sources": {relative(source): sha256(source) for source in sources}, "size": list(size)}
    write_json(manifest, dict(sorted(entries.items())))
    return path


def show_source(*objects: object) -> None:
    """Print the source of library functions and classes, for chapters in which that code is the lesson."""
    print("\n\n".join(textwrap.dedent(inspect.getsource(thing)).rstrip() for thing in objects))


def _footer(texts: Sequence[str]) -> float:
    """Return the height in inches that a row's captions need below it."""
    lines = max((text.count("\n") + 1 if text else 0 for text in texts), default=0)
    return 0.03 + 0.115 * lines if lines else 0.0


def _wrapped(captions: Sequence[str], cell: float, letters: int = 21) -> list[str]:
    """Break captions into lines that fit `cell` inches, at so many letters an inch."""
    return [textwrap.fill(caption, max(int(cell * letters), 12)) for caption in captions]


def _colours(count: int) -> list[str]:
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def _series(records: Sequence[Mapping], x: str, name: str) -> tuple[list[float], list[float]]:
    pairs = [(record[x], record[name]) for record in records if x in record and name in record]
    if not pairs:
        known = sorted({key for record in records for key in record})
        raise InputError(f"{name}: in no record; there are {', '.join(known) or 'no records'}")
    return [pair[0] for pair in pairs], [float(pair[1]) for pair in pairs]


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _within_limit(content: bytes) -> bytes:
    """Reduce a PNG's colours, then its size by steps of a tenth, until it takes at most `LIMIT` bytes."""
    original = Image.open(io.BytesIO(content)).convert("RGB")
    scale = 1.0
    while len(content) > LIMIT:
        size = (round(original.width * scale), round(original.height * scale))
        content = _encoded(original.resize(size, Image.Resampling.LANCZOS).quantize(256))
        scale *= 0.9
    return content


def _write_bytes(path: str | Path, content: bytes) -> Path:
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return Path(path)
