"""The gallery: a row of pictures for each system, and a button under each picture."""

from collections.abc import Callable
from threading import RLock

import ipywidgets as widgets

from t2ilib.errors import InputError
from t2ilib.explore import markup
from t2ilib.explore.looking import Eyes
from t2ilib.explore.receipts import png
from t2ilib.explore.studio import Painting

SIDE = 128  # pixels


class _Cell(widgets.VBox):
    """A picture and the button that looks closer at it."""

    def __init__(self, look: Callable[[], None], number: int):
        self.picture = widgets.HTML(layout={"width": f"{SIDE}px", "height": f"{SIDE + 4}px"})
        self.button = widgets.Button(description=f"Look closer at {number + 1}", layout={"width": f"{SIDE}px"})
        self.button.on_click(lambda button: look())
        super().__init__([self.picture, self.button], layout={"width": f"{SIDE + 4}px", "margin": "0 4px 4px 0"})


class _Row:
    """What stands in a row: a heading, and cells, of which the first are shown."""

    def __init__(self):
        self.heading, self.cells, self.title = widgets.HTML(), [], ""
        self.box = widgets.Box(layout={"display": "flex", "flex_flow": "row wrap"})
        self.painting: Painting | None = None


class Gallery(widgets.VBox):
    """Rows of pictures; widgets are made once and shown again, which is fast. `look` is told painting and number."""

    def __init__(self, look: Callable[[Painting, int], None]):
        self._look, self._lock = look, RLock()
        self.rows: list[_Row] = []
        super().__init__()
        self.add_class("t2i-gallery")

    @property
    def shown(self) -> list[Painting]:
        """What is shown, row by row."""
        return [row.painting for row in self.rows[: len(self.children) // 2]]

    def show(self, row: int, title: str, painting: Painting) -> None:
        """Show a painting in a row."""
        while len(self.rows) <= row:
            self.rows.append(_Row())
        own, count = self.rows[row], len(painting.pictures)
        cells = own.cells
        for number in range(len(cells), count):
            cells.append(_Cell(lambda own=own, number=number: self._look(own.painting, number), number))
        for number, cell in enumerate(cells[:count]):
            text = f"picture {number + 1} by {title}: {painting.request.caption}"
            cell.picture.value = markup.picture(png(painting.pictures[number]), text, SIDE)
            cell.button.tooltip = f"picture {number + 1} by {title}"
        with self._lock:  # whoever has measured an older painting may just write
            own.title, own.painting, own.heading.value = title, painting, markup.row(title)
        if list(own.box.children) != cells[:count]:
            own.box.children = tuple(cells[:count])
        if len(self.children) <= 2 * row:
            self.keep(row + 1)

    def keep(self, rows: int) -> None:
        """Show the first rows and no more."""
        if len(self.children) != 2 * rows:
            self.children = tuple(part for own in self.rows[:rows] for part in (own.heading, own.box))

    def measured(self, painting: Painting, eyes: Eyes) -> None:
        """Say in a painting's heading what its pictures reach: CLIP score, attributes, diversity.

        Nothing is said where another painting has taken its place.
        """
        pictures, caption, told = painting.pictures, painting.request.caption, []
        scores = eyes.scores(pictures, caption)
        if scores is not None:
            told.append(f"CLIP score {scores.mean():.1f}")
        right = [each.right for one in eyes.verdicts(pictures, caption) for each in one if each.right is not None]
        if right:
            told.append(f"{sum(right)} of {len(right)} mentioned attributes")
        try:
            varied = eyes.diversity(pictures)
        except InputError:  # its training pictures are elsewhere
            varied = None
        if varied is not None:
            told.append(f"diversity {varied:.2f}")
        with self._lock:
            for row in self.rows:
                if row.painting is painting:
                    row.heading.value = markup.row(row.title, ", ".join(told))
