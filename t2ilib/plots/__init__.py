"""Figures in one style: sheets of pictures, curves, bars, maps of the plane; and the door through which they are saved.

Figures are `matplotlib` figures made without `pyplot`: nothing is drawn twice in a notebook, nothing stays open. The
same content gives the same bytes: no dates, no versions.
"""

from t2ilib.plots.averages import averages
from t2ilib.plots.charts import banded, bars, curves, lines, progress, smoothed
from t2ilib.plots.intervals import intervals
from t2ilib.plots.pictures import Sheet, contact_sheet, framed, grid, sheet
from t2ilib.plots.plane import Arrows, Dots, Levels, Surface, plane
from t2ilib.plots.saving import LIMIT, enter, read_rows, save_figure, write_rows
from t2ilib.plots.seeds import seeds
from t2ilib.plots.source import show_source
from t2ilib.plots.style import COLOURS, DPI, HEIGHT, INK, STYLE, WIDTH, Plot
from t2ilib.plots.ticks import Ticks

__all__ = [
    "COLOURS",
    "DPI",
    "HEIGHT",
    "INK",
    "LIMIT",
    "STYLE",
    "WIDTH",
    "Arrows",
    "Dots",
    "Levels",
    "Plot",
    "Sheet",
    "Surface",
    "Ticks",
    "averages",
    "banded",
    "bars",
    "contact_sheet",
    "curves",
    "enter",
    "framed",
    "grid",
    "intervals",
    "lines",
    "plane",
    "progress",
    "read_rows",
    "save_figure",
    "seeds",
    "sheet",
    "show_source",
    "smoothed",
    "write_rows",
]
