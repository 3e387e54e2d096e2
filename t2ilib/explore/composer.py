"""Menus that write a caption of the toy birds."""

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np

from t2ilib.data import toy

ANY = "(not said)"


class Composer(widgets.VBox):
    """A menu per attribute; whatever is chosen is said, in one of many ways. `written` is told of each new caption."""

    def __init__(self, written: Callable[[str], None]):
        self._written, self._random = written, np.random.default_rng()
        style = {"description_width": "90px"}
        self.menus = {
            name: widgets.Dropdown(
                options=[ANY, *values],
                description=name.replace("_", " "),
                style=style,
                layout=widgets.Layout(width="220px"),
            )
            for name, values in toy.ATTRIBUTES.items()
        }
        for menu in self.menus.values():
            menu.observe(lambda change: self.write(), "value")
        self.otherwise = widgets.Button(description="Say it otherwise", tooltip="the same attributes in other words")
        self.otherwise.on_click(lambda button: self.write())
        box = widgets.Layout(display="flex", flex_flow="row wrap")
        super().__init__([widgets.Box(list(self.menus.values()), layout=box), self.otherwise])

    def write(self) -> None:
        """Write a caption of what is chosen, in words that chance picks; nothing where nothing is."""
        chosen = {name: menu.value for name, menu in self.menus.items() if menu.value != ANY}
        if chosen:
            self._written(toy.compose(toy.bird(chosen), chosen.keys(), int(self._random.integers(1 << 30))))

    def random(self) -> str:
        """Return a caption as the training captions are, of any bird."""
        seed = int(self._random.integers(1 << 30))
        return toy.caption(toy.sample_attributes(1, seed)[0], seed)
