"""The explorer's widget: what a visitor types and presses, and where the pictures appear.

It holds one visitor's state. Models live in the studio, which all explorers of a process share; a thread of its own
paints, so that typing never waits.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import ipywidgets as widgets
import numpy as np
from PIL import Image

from t2ilib.data import toy
from t2ilib.encoders.tokens import split_words
from t2ilib.explore import markup
from t2ilib.explore.composer import Composer
from t2ilib.explore.gallery import Gallery
from t2ilib.explore.receipts import png
from t2ilib.explore.studio import Painting, Request, Studio, changed, studio
from t2ilib.explore.worker import Worker
from t2ilib.plots import contact_sheet

CAPTION = "a small red bird with black wings and a white belly, perched on a branch."
SYSTEM = "dfgan_clip_toy"
STEPS, PACE = 8, 160  # pictures of a walk, milliseconds of each in the animation
MOST = 8  # pictures of one system
WIDE = {"width": "100%"}
NAMED = {"description_width": "90px"}


def _row(*parts: widgets.Widget) -> widgets.Box:
    return widgets.Box(parts, layout=widgets.Layout(display="flex", flex_flow="row wrap", align_items="center"))


def _button(text: str, tooltip: str, style: str = "") -> widgets.Button:
    return widgets.Button(description=text, tooltip=tooltip, button_style=style, layout=widgets.Layout(width="auto"))


class Explorer(widgets.VBox):
    """Type or compose a caption, see what each chosen system paints of it, look closer, walk to another one."""

    def __init__(self, caption: str = CAPTION, systems: Sequence[str] = (SYSTEM,), shared: Studio | None = None):
        self.studio = shared or studio()
        self.worker = Worker(partial(self.tell, wrong=True))
        self.status, self.tokens = widgets.HTML(), widgets.HTML()
        self.gallery, self.closer = Gallery(self.look), widgets.VBox()
        self.shown: list[Painting] = []  # what stands in the gallery, row by row
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
            placeholder="run folder or checkpoint file", description="Another", style=NAMED, continuous_update=False
        )
        self.add = _button("Add", "load this run or checkpoint and choose it, too")
        self.add.on_click(lambda button: self.worker.ask("add", self._add))
        return _row(self.systems, self.other, self.add)

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
        self.truncation.observe(lambda change: self.paint() if self.shown else None, "value")
        return _row(self.seed, self.next, self.count, self.cut, self.truncation)

    def _more(self) -> widgets.Accordion:
        self.word = widgets.Dropdown(description="Word", style=NAMED)
        self.word.observe(lambda change: self._alternatives(), "value")
        self.instead = widgets.Combobox(placeholder="another word", description="instead", ensure_option=False)
        self.change = _button("Paint both", "the caption and the changed one, with the same noise")
        self.change.on_click(lambda button: self.compare())
        self.to_caption = widgets.Text("a large blue bird with white wings at sunset.", description="To caption")
        self.to_caption.style, self.to_caption.layout = NAMED, WIDE
        self.to_seed = widgets.BoundedIntText(1, min=0, max=2**31 - 1, description="and seed", style=NAMED)
        self.go = _button("Walk", "from this caption and seed to those, in eight pictures")
        self.go.on_click(lambda button: self.walk())
        self.way = widgets.HTML()
        self.accordion = widgets.Accordion(
            [
                self.composer,
                _row(self.word, self.instead, self.change),
                widgets.VBox([self.to_caption, _row(self.to_seed, self.go), self.way]),
            ],
            titles=("Compose a caption", "Change one word", "Walk between two captions"),
        )
        return self.accordion

    # ---- what a visitor does ------------------------------------------------------------------------------------

    def write(self, caption: str) -> None:
        """Put a caption into its box."""
        self.caption.value = caption

    def paint(self) -> None:
        """Paint the caption by all chosen systems."""
        self._ask([(name, partial(self._request, name)) for name in self.systems.value])

    def compare(self) -> None:
        """Paint the caption, and below it the one with a word exchanged, by all chosen systems with the same noise."""
        word, other, asked = self.word.value or "", self.instead.value, []
        for name in self.systems.value:
            asked.append((name, partial(self._request, name)))
            asked.append((f"{name}, {other} for {word}", lambda name=name: changed(self._request(name), word, other)))
        self._ask(asked)

    def walk(self) -> None:
        """Paint the way from the caption and its noise to the other ones, by the first chosen system."""
        self.worker.ask("walk", self._walk)

    def look(self, row: int, number: int) -> None:
        """Look closer at a picture of the gallery."""
        painting = self.shown[row]
        self.worker.ask("look", lambda: self._look(painting, number))

    def tell(self, text: str, wrong: bool = False) -> None:
        """Say in one sentence what the page is doing, or what went wrong."""
        self.status.value = markup.status(text, wrong)

    # ---- what happens then --------------------------------------------------------------------------------------

    def _request(self, system: str) -> Request:
        cut = self.truncation.value if self.cut.value else None
        return Request(self.caption.value, system, self.seed.value, self.count.value, cut)

    def _ask(self, asked: list) -> None:
        if not asked:
            self.tell("No system is chosen: choose one or more in the list.", wrong=True)
            return
        requests = []
        try:
            requests = [(title, make()) for title, make in asked]
        except ValueError as error:
            self.tell(str(error), wrong=True)
            return
        self.worker.ask("paint", lambda: self._paint(requests))

    def _paint(self, requests: list[tuple[str, Request]]) -> None:
        shown, remarks, seconds = [], [], 0.0
        for number, (title, request) in enumerate(requests, 1):
            self.tell(f"Painting {number} of {len(requests)}: {title} ...")
            painting = self.studio.paint(request)
            shown.append(painting)
            self.shown = shown.copy()
            self.gallery.show(number - 1, title, painting)
            remarks += [remark for remark in painting.remarks if remark not in remarks]
            seconds += painting.seconds
        self.gallery.keep(len(shown))
        self._read()
        count = sum(len(each.pictures) for each in shown)
        self.tell(" ".join([f"{count} pictures in {seconds:.2f} s.", *(f"{remark}." for remark in remarks)]))
        self.worker.ask("measure", partial(self._measure, shown))

    def _measure(self, shown: list[Painting]) -> None:
        for number, painting in enumerate(shown):
            eyes = self.studio.eyes(painting.request.system)
            self.gallery.measured(number, painting, eyes)

    def _look(self, painting: Painting, number: int) -> None:
        receipt, one = painting.receipt(number), painting.pictures[number : number + 1]
        content = png(one[0], receipt)
        large = widgets.Image(value=content, format="png", width=256, layout={"width": "256px"})
        about, near = widgets.HTML(), widgets.HTML(markup.status("Looking through the training pictures ..."))
        link = widgets.HTML(markup.download(content, markup.file_name(receipt), "Save this picture with its recipe"))
        self.closer.children = (_row(large, widgets.VBox([about, link])), near)
        eyes = self.studio.eyes(receipt.system)
        scores = eyes.scores(one, receipt.caption)
        verdicts = eyes.verdicts(one, receipt.caption)[0]
        about.value = markup.about(receipt, None if scores is None else float(scores[0]), verdicts)
        near.value = markup.neighbours(eyes.nearest(one)[0])

    def _walk(self) -> None:
        if not self.systems.value:
            self.tell("No system is chosen: choose one or more in the list.", wrong=True)
            return
        first = self._request(self.systems.value[0])
        last = replace(first, caption=self.to_caption.value, seed=self.to_seed.value)
        self.tell(f"Walking with {first.system} ...")
        pictures = self.studio.walk(first, last, STEPS)
        strip = png(np.asarray(contact_sheet(pictures, columns=STEPS)))
        moving = animation(pictures)
        self.way.value = markup.block(
            f'<img style="max-width: 100%; width: {STEPS * 112}px" src="{markup.data_url(strip)}" '
            f'alt="{STEPS} pictures on the way"><br><img width="128" alt="the same, moving" '
            f'src="{markup.data_url(moving, "image/gif")}">'
        ) + markup.download(moving, "walk.gif", "Save the animation", "image/gif")
        self.tell(f"{STEPS} pictures from the one to the other, by {first.system}.")

    def _add(self) -> None:
        name = self.other.value.strip()
        if not name:
            self.tell("Name a run folder or a checkpoint file first.", wrong=True)
            return
        self.tell(f"Loading {name} ...")
        self.studio.open(name)
        chosen = tuple(dict.fromkeys([*self.systems.value, name]))
        self.systems.options = tuple(dict.fromkeys([*self.systems.options, name]))  # which drops the choice
        self.systems.value = chosen
        self.tell(f"{name} is loaded and chosen.")

    def _next(self) -> None:
        self.seed.value += 1
        self.paint()

    def _truncate(self) -> None:
        self.truncation.disabled = not self.cut.value
        if self.shown:
            self.paint()

    def _read(self) -> None:
        caption = self.caption.value
        self.tokens.value = markup.words(caption, self.studio.unknown(self.systems.value, caption))
        found = list(dict.fromkeys(split_words(caption[:2000])))[: markup.SHOWN]
        if list(self.word.options) != found:
            chosen = next((word for word in found if toy.alternatives(word)), None)
            self.word.options, self.word.value = found, chosen

    def _alternatives(self) -> None:
        self.instead.options = tuple(toy.alternatives(self.word.value or ""))
        self.instead.value = next(iter(self.instead.options), "")


def animation(pictures: np.ndarray) -> bytes:
    """Return pictures (N, H, W, 3) uint8 as a GIF that goes there and back."""
    frames = [Image.fromarray(picture) for picture in [*pictures, *pictures[-2:0:-1]]]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=PACE, loop=0)
    return buffer.getvalue()
