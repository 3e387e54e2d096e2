"""A closer look at one picture: how it was judged, what it is like, and how to keep it."""

from threading import RLock

import ipywidgets as widgets

from t2ilib.errors import InputError
from t2ilib.explore import markup
from t2ilib.explore.receipts import png
from t2ilib.explore.studio import Painting, Studio

SIDE = 256  # pixels


class Closer(widgets.VBox):
    """One large picture with all that is known of it; its widgets are made once."""

    def __init__(self):
        self.picture, self.about, self.link, self.near = (widgets.HTML() for _ in range(4))
        self._shown: tuple[Painting, int] | None = None
        self._lock = RLock()
        row = widgets.Layout(display="flex", flex_flow="row wrap", align_items="center")
        super().__init__([widgets.Box([self.picture, widgets.VBox([self.about, self.link])], layout=row), self.near])

    def show(self, painting: Painting, number: int) -> None:
        """Show a picture, and the link that saves it."""
        receipt = painting.receipt(number)
        content = png(painting.pictures[number], receipt)
        with self._lock:
            self._shown = painting, number
            self.picture.value = markup.picture(content, receipt.caption, SIDE)
            self.about.value = markup.status("Looking at it ...")
            self.link.value = markup.download(content, markup.file_name(receipt), "Save this picture with its recipe")
            self.near.value = markup.status("Looking through the training pictures ...")

    def judged(self, painting: Painting, number: int, studio: Studio) -> None:
        """Say how a picture was judged and which training pictures are like it; where nobody can, why.

        Nothing is said where another picture is looked at by now.
        """
        receipt, one = painting.receipt(number), painting.pictures[number : number + 1]
        about, near = markup.about(receipt, None, "", []), ""
        try:
            eyes = studio.eyes(receipt.system)
            scores, verdicts = eyes.scores(one, receipt.caption), eyes.verdicts(one, receipt.caption)[0]
            score, judge = (None, "") if scores is None else (float(scores[0]), eyes.clip.name)
            about = markup.about(receipt, score, judge, verdicts)
            self._say(painting, number, about)
            near = markup.neighbours(eyes.nearest(one)[0])
        except InputError as error:
            near = markup.status(str(error), wrong=True)
        self._say(painting, number, about, near)

    def _say(self, painting: Painting, number: int, about: str, near: str | None = None) -> None:
        with self._lock:
            if self._shown is not None and self._shown[0] is painting and self._shown[1] == number:
                self.about.value = about
                if near is not None:
                    self.near.value = near
