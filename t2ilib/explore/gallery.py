"""The gallery: a row of pictures for each system, and a button under each picture."""

from collections.abc import Callable

import ipywidgets as widgets

from t2ilib.explore import markup
from t2ilib.explore.looking import Eyes
from t2ilib.explore.receipts import png
from t2ilib.explore.studio import Painting

SIDE = "132px"


class _Cell(widgets.VBox):
    """A picture and the button that looks closer at it."""

    def __init__(self, look: Callable[[], None]):
        self.picture = widgets.Image(format="png", width=128, height=128, layout={"width": "128px", "height": "128px"})
        self.button = widgets.Button(description="Look closer", layout={"width": "128px"})
        self.button.on_click(lambda button: look())
        super().__init__([self.picture, self.button], layout={"width": SIDE, "margin": "0 4px 4px 0"})


class _Row:
    """What stands in a row: a heading, and cells, of which the first are shown."""

    def __init__(self):
        self.heading, self.cells, self.title = widgets.HTML(), [], ""
        self.box = widgets.Box(layout={"display": "flex", "flex_flow": "row wrap"})


class Gallery(widgets.VBox):
    """Rows of pictures; widgets are made once and shown again, which is fast. `look` is told row and number."""

    def __init__(self, look: Callable[[int, int], None]):
        self._look = look
        self.rows: list[_Row] = []
        super().__init__()
        self.add_class("t2i-gallery")

    def show(self, row: int, title: str, painting: Painting) -> None:
        """Show a painting in a row."""
        while len(self.rows) <= row:
            self.rows.append(_Row())
        own, count = self.rows[row], len(painting.pictures)
        cells, own.title = own.cells, title
        for number in range(len(cells), count):
            cells.append(_Cell(lambda row=row, number=number: self._look(row, number)))
        for number, cell in enumerate(cells[:count]):
            cell.picture.value = png(painting.pictures[number], painting.receipt(number))
            cell.button.tooltip = f"picture {number + 1} by {title}"
        own.heading.value = markup.row(title)
        if list(own.box.children) != cells[:count]:
            own.box.children = tuple(cells[:count])
        if len(self.children) <= 2 * row:
            self._arrange(row + 1)

    def keep(self, rows: int) -> None:
        """Show no more than the first rows."""
        if len(self.children) != 2 * rows:
            self._arrange(rows)

    def measured(self, row: int, painting: Painting, eyes: Eyes) -> None:
        """Say in a row's heading what its pictures reach: CLIP score, attributes, diversity."""
        pictures, caption = painting.pictures, painting.request.caption
        told, scores = [], eyes.scores(pictures, caption)
        if scores is not None:
            told.append(f"CLIP score {scores.mean():.1f}")
        right = [each.right for one in eyes.verdicts(pictures, caption) for each in one if each.right is not None]
        if right:
            told.append(f"{sum(right)} of {len(right)} mentioned attributes")
        varied = eyes.diversity(pictures)
        if varied is not None:
            told.append(f"diversity {varied:.2f}")
        self.rows[row].heading.value = markup.row(self.rows[row].title, ", ".join(told))

    def _arrange(self, rows: int) -> None:
        self.children = tuple(part for own in self.rows[:rows] for part in (own.heading, own.box))
