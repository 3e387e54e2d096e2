"""One style for all figures, and how a figure becomes a PNG."""

import io

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

WIDTH, HEIGHT, DPI = 7.0, 4.0, 100  # inches, inches, dots per inch
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
        return encoded(Image.open(io.BytesIO(png_bytes(self))).quantize(64, kmeans=1))


def png_bytes(figure: Figure | Image.Image) -> bytes:
    """The PNG of a figure or picture, the same bytes for the same content."""
    if isinstance(figure, Figure):
        buffer = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
        figure = Image.open(buffer)
    return encoded(figure.convert("RGB"))


def encoded(image: Image.Image) -> bytes:
    """A picture's PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def colours(count: int) -> list[str]:
    """So many colours of the palette, again from its start where it ends."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
