"""The explorer's widget: what a visitor types and presses, and where the pictures appear.

It holds one visitor's state. Models live in the studio, which all explorers of a process share; a thread of its own
paints, so that typing never waits.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from threading import RLock

import ipywidgets as widgets
import numpy as np
from PIL import Image

from t2ilib.data import toy
from t2ilib.encoders.tokens import split_words
from t2ilib.errors import InputError
from t2ilib.explore import markup
from t2ilib.explore.closer import Closer
from t2ilib.explore.composer import Composer
from t2ilib.explore.gallery import Gallery
from t2ilib.explore.receipts import png
from t2ilib.explore.studio import Painting, Request, Studio, changed, studio
from t2ilib.explore.worker import Worker
from t2ilib.plots import contact_sheet
from t2ilib.sheets import CAPTION_LIMIT

CAPTION = "a small red bird with black wings and a white belly, perched on a branch."
SYSTEM = "dfgan_clip_toy"
STEPS, PACE, ROUNDS = 8, 160, 5  # pictures of a walk; milliseconds of each in the animation, and how often it goes
MOST = 8  # pictures of one system
WIDE = {"width": "100%"}
NAMED = {"description_width": "90px"}


def _row(*parts: widgets.Widget) -> widgets.Box:
    return widgets.Box(parts, layout=widgets.Layout(display="flex", flex_flow="row wrap", align_items="center"))


def _button(text: str, tooltip: str, style: str = "") -> widgets.Button:
    return widgets.Button(description=text, tooltip=tooltip, button_style=style, layout=widgets.Layout(width="auto"))


class Explorer(widgets.VBox):
    """Type or compose a caption, see what each chosen system paints of it, look closer, walk to another one."""

    def __init__(
        self,
        caption: str = CAPTION,
        systems: Sequence[str] = (SYSTEM,),
        shared: Studio | None = None,
        *,
        others: bool = True,
    ):
        """Begin with a caption and systems; without `others` visitors open no files: for a page that strangers see."""
        self.studio = shared or studio()
        self.worker = Worker(partial(self.tell, wrong=True))
        self.status, self.tokens = widgets.HTML(), widgets.HTML()
        self.gallery, self.closer = Gallery(self.look), Closer()
        self._others, self._lock, self._repeat = others, RLock(), self.paint
        super().__init__(
            [
                widgets.HTML(markup.STYLE),
                self._caption_box(caption),
                self._system_box(systems),
                self._noise_box(),
                self._more(),
                self.status,
                self.gallery,
                self.closer,
            ]
        )
        self.add_class("t2i-explorer")
        self._read()
        self.tell("Press Generate. The first pictures of a system take a moment longer: it is loaded then.")

    # ---- what the page holds ------------------------------------------------------------------------------------

    def _caption_box(self, caption: str) -> widgets.VBox:
        self.caption = widgets.Textarea(caption, description="Caption", rows=2, style=NAMED, layout=WIDE)
        self.caption.observe(lambda change: self._read(), "value")
        self.generate = _button("Generate", "paint the caption by all chosen systems", "primary")
        self.generate.on_click(lambda button: self.paint())
        self.random = _button("Random caption", "a caption as the training captions are")
        self.random.on_click(lambda button: self.write(self.composer.random()))
        self.composer = Composer(self.write)
        return widgets.VBox([self.caption, self.tokens, _row(self.generate, self.random)], layout=WIDE)

    def _system_box(self, systems: Sequence[str]) -> widgets.Box:
        names = list(dict.fromkeys([*self.studio.systems(), *systems]))
        self.systems = widgets.SelectMultiple(
            options=names, value=tuple(systems), rows=min(6, len(names)), description="Systems", style=NAMED
        )
        self.systems.observe(lambda change: self._read(), "value")
        self.other = widgets.Text(
            placeholder="run, checkpoint or dfgan:FILE",
            description="Another",
            style=NAMED,
            continuous_update=False,
        )
        self.add = _button("Add", "load this run or checkpoint and choose it, too")
        self.add.on_click(lambda button: self.choose(self.other.value.strip()))
        return _row(self.systems, *([self.other, self.add] if self._others else []))

    def _noise_box(self) -> widgets.Box:
        self.seed = widgets.BoundedIntText(0, min=0, max=2**31 - 1, description="Seed", style=NAMED)
        self.next = _button("Next seed", "other noise, painted at once")
        self.next.on_click(lambda button: self._next())
        self.count = widgets.BoundedIntText(4, min=1, max=MOST, description="Pictures", style=NAMED)
        self.cut = widgets.Checkbox(False, description="Truncate the noise", indent=False, layout={"width": "auto"})
        self.truncation = widgets.FloatSlider(
            0.88, min=0.05, max=1.5, step=0.01, description="to", continuous_update=False, disabled=True
        )
        self.cut.observe(lambda change: self._truncate(), "value")
        self.truncation.observe(lambda change: self._repeat() if self.shown else None, "value")
        return _row(self.seed, self.next, self.count, self.cut, self.truncation)

    def _more(self) -> widgets.VBox:
        self.word = widgets.Dropdown(description="Word", style=NAMED)
        self.word.observe(self._alternatives, "value")
        self.instead = widgets.Combobox(placeholder="another word", description="instead", ensure_option=False)
        self.change = _button("Paint both", "the caption and the changed one, with the same noise")
        self.change.on_click(lambda button: self.compare())
        self.to_caption = widgets.Text("a large blue bird with white wings at sunset.", description="To caption")
        self.to_caption.style, self.to_caption.layout = NAMED, WIDE
        self.to_seed = widgets.BoundedIntText(1, min=0, max=2**31 - 1, description="and seed", style=NAMED)
        self.go = _button("Walk", "from this caption and seed to those, in eight pictures")
        self.go.on_click(lambda button: self.walk())
        self.way = widgets.HTML()
        drawers = {
            "Compose a caption": self.composer,
            "Change one word": _row(self.word, self.instead, self.change),
            "Walk between two captions": widgets.VBox([self.to_caption, _row(self.to_seed, self.go), self.way]),
        }
        self.drawers = [widgets.ToggleButton(description=name, layout={"width": "auto"}) for name in drawers]
        for button, drawer in zip(self.drawers, drawers.values(), strict=True):
            button.observe(partial(_toggle, drawer, drawer.layout.display), "value")
            drawer.layout.display = "none"
        return widgets.VBox([_row(*self.drawers), *drawers.values()], layout=WIDE)

    # ---- what a visitor does ------------------------------------------------------------------------------------

    def write(self, caption: str) -> None:
        """Put a caption into its box."""
        self.caption.value = caption

    @property
    def shown(self) -> list[Painting]:
        """What stands in the gallery, row by row."""
        return self.gallery.shown

    def paint(self) -> None:
        """Paint the caption by all chosen systems."""
        self._repeat = self.paint
        self._ask([(name, partial(self._request, name)) for name in self.systems.value])

    def compare(self) -> None:
        """Paint the caption, and below it the one with a word exchanged, by all chosen systems with the same noise."""
        self._repeat = self.compare
        word, other, asked = self.word.value or "", self.instead.value, []
        for name in self.systems.value:
            asked.append((name, partial(self._request, name)))
            asked.append((f"{name}, {other} for {word}", lambda name=name: changed(self._request(name), word, other)))
        self._ask(asked)

    def walk(self) -> None:
        """Paint the way from the caption and its noise to the other ones, by the first chosen system."""
        self.way.value = ""  # an older way would stand beside other captions
        if not self._chosen():
            return
        try:
            first = self._request(self.systems.value[0])
            last = replace(first, caption=self.to_caption.value, seed=self.to_seed.value)
        except InputError as error:
            self.tell(str(error), wrong=True)
            return
        self._wait()
        self.worker.ask("walk", lambda: self._walk(first, last))

    def choose(self, name: str) -> None:
        """Load a run or a checkpoint, and choose it, too."""
        if not self._others:
            self.tell("This page opens no files; choose among the systems of the list.", wrong=True)
            return
        if not name:
            self.tell("Name a run folder or a checkpoint file first.", wrong=True)
            return
        self._wait()
        self.worker.ask(f"add {name}", lambda: self._add(name))

    def look(self, painting: Painting, number: int) -> None:
        """Look closer at a picture of the gallery."""
        self.closer.show(painting, number)
        self.worker.ask("look", lambda: self.closer.judged(painting, number, self.studio), later=True)

    def tell(self, text: str, wrong: bool = False) -> None:
        """Say in one sentence what the page is doing, or what went wrong."""
        self.status.value = markup.status(text, wrong)

    # ---- what happens then --------------------------------------------------------------------------------------

    def _request(self, system: str) -> Request:
        cut = self.truncation.value if self.cut.value else None
        return Request(self.caption.value, system, self.seed.value, self.count.value, cut)

    def _chosen(self) -> bool:
        if not self.systems.value:
            self.tell("No system is chosen: choose one or more in the list.", wrong=True)
        return bool(self.systems.value)

    def _wait(self) -> None:
        if self.worker.busy:
            self.tell("One moment: something else is being finished ...")

    def _ask(self, asked: list) -> None:
        if not self._chosen():
            return
        try:
            requests = [(title, make()) for title, make in asked]
        except InputError as error:
            self.tell(str(error), wrong=True)
            return
        self._wait()
        self.worker.ask("paint", lambda: self._paint(requests))

    def _paint(self, requests: list[tuple[str, Request]]) -> None:
        shown: list[Painting] = []
        try:
            for number, (title, request) in enumerate(requests, 1):
                self.tell(f"Painting {number} of {len(requests)}: {title} ...")
                if number > 1:
                    self.gallery.keep(number - 1)  # those below are of an earlier caption
                shown.append(self.studio.paint(request))
                self.gallery.show(number - 1, title, shown[-1])
        finally:
            self.gallery.keep(len(shown))  # older pictures would stand beside another caption
            self.worker.ask("measure", partial(self._measure, shown), later=True)
        self._read()
        remarks = dict.fromkeys(remark for painting in shown for remark in painting.remarks)
        count, seconds = sum(len(each.pictures) for each in shown), sum(each.seconds for each in shown)
        self.tell(" ".join([f"{count} pictures in {seconds:.2f} s.", *(f"{remark}." for remark in remarks)]))

    def _measure(self, shown: list[Painting]) -> None:
        for painting in shown:
            self.gallery.measured(painting, self.studio.eyes(painting.request.system))

    def _walk(self, first: Request, last: Request) -> None:
        self.tell(f"Walking with {first.system} ...")
        pictures = self.studio.walk(first, last, STEPS)
        strip, moving = png(np.asarray(contact_sheet(pictures, columns=STEPS))), animation(pictures)
        title = markup.row(first.system, f'from "{first.caption[:200]}" to "{last.caption[:200]}"')
        link = markup.download(moving, "walk.gif", "Save the animation", "image/gif")
        self.way.value = title + markup.way(strip, moving, STEPS) + link
        self.tell(f"{STEPS} pictures from the one to the other, by {first.system}.")

    def _add(self, name: str) -> None:
        self.tell(f"Loading {name} ...")
        self.studio.open(name)
        with self._lock:
            chosen = tuple(dict.fromkeys([*self.systems.value, name]))
            self.systems.options = tuple(dict.fromkeys([*self.systems.options, name]))  # which drops the choice
            self.systems.value = chosen
        self.tell(f"{name} is loaded and chosen.")

    def _next(self) -> None:
        self.seed.value = 0 if self.seed.value == self.seed.max else self.seed.value + 1
        self._repeat()

    def _truncate(self) -> None:
        self.truncation.disabled = not self.cut.value
        if self.shown:
            self._repeat()

    def _read(self) -> None:
        with self._lock:
            caption = self.caption.value[: CAPTION_LIMIT + 1]
            self.tokens.value = markup.words(caption, self.studio.unknown(self.systems.value, caption))
            found = list(dict.fromkeys(split_words(caption[:2000])))[: markup.SHOWN]
            if list(self.word.options) != found:
                known = next((word for word in found if toy.alternatives(word)), None)
                before = self.word.value
                self.word.unobserve(self._alternatives, "value")  # new options alone choose the first
                self.word.options = found
                self.word.value = before if before in found else known
                self.word.observe(self._alternatives, "value")
                self._alternatives()

    def _alternatives(self, _change: dict | None = None) -> None:
        options = tuple(toy.alternatives(self.word.value or ""))
        if options != self.instead.options:
            self.instead.options = options
            self.instead.value = next(iter(options), "")


def _toggle(drawer: widgets.Box, shown: str, change: dict) -> None:
    drawer.layout.display = shown if change["new"] else "none"


def animation(pictures: np.ndarray) -> bytes:
    """Return pictures (N, H, W, 3) uint8 as a GIF that goes there and back."""
    frames = [Image.fromarray(picture) for picture in [*pictures, *pictures[-2:0:-1]]]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=PACE, loop=ROUNDS)
    return buffer.getvalue()
