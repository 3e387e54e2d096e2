"""One style for all figures, and how a figure becomes a PNG or a PDF.

The colours are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which people with any of the three kinds of
colour blindness tell apart; marks and dashes tell series apart without any colour, as in a grey print.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure
from PIL import Image

WIDTH, HEIGHT, DPI = 7.0, 4.0, 100  # inches, inches, dots per inch
INK, GRID = "#33383d", "#e3e6e8"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#3b2a6b", "#6b4a1f")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2)), "--")
UNDATED = ("CreationDate", "Creator", "Producer")  # what matplotlib would write into a PDF
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
    "text.parse_math": False,  # a caption may hold what matplotlib takes for a formula
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "axes.prop_cycle": matplotlib.cycler(color=COLOURS),
}


class Plot(Figure):
    """A figure that a notebook shows when it is a cell's value; a chart holds the `numbers` that it draws."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.numbers: list[dict] = []

    def note(self, where: Mapping[str, object], **columns: Sequence) -> None:
        """Keep what is drawn: rows of equally long `columns`, each beside `where` (panel, series) it was drawn."""
        rows = zip(*columns.values(), strict=True)
        self.numbers += [{**where, **dict(zip(columns, row, strict=True))} for row in rows]

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


def pdf_bytes(figure: Figure) -> bytes:
    """The vector PDF of a figure: the same bytes for the same content, without dates and versions."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"pdf.fonttype": 42}):  # fonts as TrueType: a reader can search the text
        figure.savefig(buffer, format="pdf", facecolor="white", metadata=dict.fromkeys(UNDATED))
    return buffer.getvalue()


def encoded(image: Image.Image) -> bytes:
    """A picture's PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def looks(count: int) -> list[dict]:
    """So many looks of lines with marks: colour and mark, again from the start where they end."""
    marks = [MARKS[index % len(MARKS)] for index in range(count)]
    return [{"color": colour, "marker": mark} for colour, mark in zip(colours(count), marks, strict=True)]


def dashes(count: int) -> list:
    """So many kinds of dashes for lines without marks, again from the start where they end."""
    return [DASHES[index % len(DASHES)] for index in range(count)]


def colours(count: int) -> list[str]:
    """So many colours of the palette, again from its start where it ends."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]
