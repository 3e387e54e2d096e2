"""All models of a process, each loaded once, and what an explorer asks of them: paint a caption, walk between two.

Nothing here knows of widgets. Several explorers share a studio: it keeps nothing of what they ask.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import Any
from unicodedata import normalize

import numpy as np
import torch
from torch import Tensor

from t2ilib.encoders.vocabulary import remarks
from t2ilib.errors import InputError, one_line
from t2ilib.explore.looking import Eyes, eyes_of, nobody
from t2ilib.explore.receipts import Receipt, check_caption, check_kinds
from t2ilib.features import Text
from t2ilib.files import WEIGHTS, sha256
from t2ilib.models import SYSTEMS
from t2ilib.pictures import to_uint8
from t2ilib.released import files_beside, is_released, released_file
from t2ilib.sampler import Sampler, check_drawing
from t2ilib.sampling import load_sampler, weights_file
from t2ilib.training import Run
from t2ilib.training.checkpoints import read_about
from t2ilib.training.recipe import TRAINED_HERE

KEPT = 8  # systems in memory; the one that was used longest ago goes first
HALF_TRAINED = "_start"  # how shipped weights are called that training goes on from
MOST = 64  # pictures of one request
LONGEST_WORD = 100  # characters that can be put in a word's place


@dataclass(frozen=True)
class Request:
    """What a visitor wants painted: `count` pictures of a caption, with the noise of a seed."""

    caption: str
    system: str
    seed: int = 0
    count: int = 4
    truncation: float | None = None

    def __post_init__(self) -> None:
        """Raise InputError for what cannot be painted."""
        check_kinds(self, "request")
        if not self.system.strip():
            raise InputError("system: none is named; give a run, a checkpoint, shipped weights or dfgan:FILE")
        check_caption(self.caption)
        check_drawing(self.seed, self.count, self.truncation)
        if self.count > MOST:
            raise InputError(f"count = {self.count}: at most {MOST} at once; for more take further seeds")


@dataclass(frozen=True)
class Painting:
    """The pictures of one request, and what is to be said about them."""

    request: Request
    pictures: np.ndarray  # (count, H, W, 3) uint8
    weights: str  # SHA-256 of the file; of released weights also of the encoder that reads for them
    remarks: tuple[str, ...]  # what the encoder reads otherwise than one may think
    seconds: float

    def receipt(self, number: int) -> Receipt:
        """Return what picture `number` was painted from."""
        asked = self.request
        return Receipt(asked.caption, asked.system, self.weights, asked.seed, number, asked.count, asked.truncation)


@dataclass(frozen=True)
class _Loaded:
    sampler: Sampler
    path: Path
    stamp: tuple  # of the file, when it was read
    weights: str


class Studio:
    """Systems by name, loaded when they are first asked for; safe to be used by several threads at once."""

    def __init__(self, device: torch.device | str | None = None):
        self.device = device
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        self._eyes: dict[Any, Eyes] = {}
        self._lock = RLock()  # one at a time computes: a CPU is not faster with two, and encoders listen to themselves
        self._loading = RLock()  # one at a time loads; what is loaded paints meanwhile

    def systems(self) -> list[str]:
        """Return the names of the shipped systems that are trained to the end."""
        names = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
        return [name for name in names if not name.endswith(HALF_TRAINED) and _task_of(name) in SYSTEMS]

    def open(self, source: str) -> Sampler:
        """Return the sampler of shipped weights, a run, a checkpoint or "NAME:FILE"; InputError where there is none."""
        return self._open(source).sampler

    def paint(self, request: Request) -> Painting:
        """Paint what is asked for; InputError for a source that cannot be loaded."""
        loaded = self._open(request.system)
        with self._lock:
            started, sampler = time.perf_counter(), loaded.sampler
            told = tuple(remarks(sampler.encoder, [request.caption]))
            batches = list(sampler.stream([request.caption], request.seed, request.count, request.truncation))
            pictures = to_uint8(torch.cat(batches))
        return Painting(request, pictures, loaded.weights, told, time.perf_counter() - started)

    def again(self, receipt: Receipt, source: str | None = None) -> tuple[np.ndarray, Receipt]:
        """Return the picture (H, W, 3) uint8 of a receipt, painted anew, and its receipt; with a `source`, by that.

        Without one only shipped weights are opened: a stranger's picture does not choose among the files of a machine.
        InputError for other ones, and where weights of that name are no longer those of the receipt.
        """
        named = receipt.system if source is None else source
        asked = Request(receipt.caption, named, receipt.seed, receipt.count, receipt.truncation)
        if source is None:
            shipped = {path.stem: path for path in WEIGHTS.glob("*.safetensors")}
            name = one_line(asked.system, 200)
            if asked.system not in shipped:
                raise InputError(
                    f"{name}: what painted the picture is no shipped weights; name it, or others, as source"
                )
            if sha256(shipped[asked.system]) != receipt.weights:
                raise InputError(
                    f"{name}: other weights than the picture was painted with (SHA-256 {receipt.weights[:12]}...); "
                    f"put those there, or name {name} as the source to paint with what is there"
                )
        painting = self.paint(asked)
        return painting.pictures[receipt.number], painting.receipt(receipt.number)

    def walk(self, first: Request, last: Request, steps: int = 8) -> np.ndarray:
        """Return pictures (steps, H, W, 3) on the way from one caption and noise to another, of the first's system.

        Sentence features go along a line, noise along the arc of a great circle, which keeps its length.
        """
        if first.system != last.system or first.truncation != last.truncation:
            raise InputError("walk: both ends must be of one system and one truncation; choose one")
        if not 2 <= steps <= MOST:
            raise InputError(f"steps = {steps}: must be at least 2 and at most {MOST}")
        sampler = self._open(first.system).sampler
        with self._lock:
            sentences = sampler.encoder.encode([first.caption, last.caption]).sentence
            ends = [_noise(sampler, each) for each in (first, last)]
            along = torch.linspace(0, 1, steps)
            text = Text(torch.stack([torch.lerp(*sentences, share.item()) for share in along]))
            noise = torch.stack([arc(*ends, share.item()) for share in along]).to(sampler.device)
            return to_uint8(sampler.generate(text, noise))

    def unknown(self, sources: Iterable[str], caption: str) -> list[str]:
        """Return the caption's words that an encoder of systems that are in memory does not know; it never waits."""
        found = [self._loaded.get(source) for source in sources]  # another thread may just put one away
        unknown = (loaded.sampler.encoder.unknown(caption) for loaded in found if loaded)
        return list(dict.fromkeys(chain.from_iterable(unknown)))

    def eyes(self, source: str) -> Eyes:
        """Return who looks at the pictures of a system: the judges of its recipe, and its training pictures."""
        sampler = self._open(source).sampler
        if sampler.recipe is None:
            return nobody(source)
        with self._lock:
            judge = sampler.recipe.encoder("judge")
            own = sampler.folder if judge[1].name == TRAINED_HERE else None
            key = (repr(sampler.recipe.data), repr(judge), own)
            if key not in self._eyes:
                self._eyes[key] = eyes_of(sampler, self._lock)
            while len(self._eyes) > KEPT:
                self._eyes.pop(next(iter(self._eyes)))
            return self._eyes[key]

    def _open(self, source: str) -> _Loaded:
        source = str(source)
        if (loaded := self._kept(source)) is not None:
            return loaded
        with self._loading:
            if (loaded := self._kept(source)) is None:  # nobody has read it meanwhile
                loaded = self._read(source)
                with self._lock:
                    self._loaded[source] = loaded
                    while len(self._loaded) > KEPT:
                        self._loaded.popitem(last=False)
            return loaded

    def _kept(self, source: str) -> _Loaded | None:
        """Return a source that is in memory; None where it is not, or its files have changed: a run that goes on."""
        with self._lock:
            loaded = self._loaded.get(source)
            if loaded is None or loaded.stamp != _stamp(loaded.path, source):
                return None
            self._loaded.move_to_end(source)
            return loaded

    def _read(self, source: str) -> _Loaded:
        """Load a source; where its files change meanwhile, InputError."""
        strange = is_released(source)
        path = released_file(source)[1] if strange else weights_file(source)[0]
        stamp = _stamp(path, source)
        sampler = load_sampler(source if strange else path, self.device)
        digest = sha256(path)
        if strange:  # another encoder beside it would paint other pictures
            digest = hashlib.sha256(f"{digest} {sampler.encoder.fingerprint}".encode()).hexdigest()
        if _stamp(path, source) != stamp:
            raise InputError(f"{one_line(path, 300)}: is being written; try again when it is whole")
        return _Loaded(sampler, path, stamp, digest)


@lru_cache(maxsize=1)
def studio() -> Studio:
    """Return the studio of this process, which all its explorers share."""
    return Studio()


def arc(first: Tensor, last: Tensor, share: float) -> Tensor:
    """Return the point at `share` (0 to 1) of the way from one vector (Z,) to another, on the arc between them."""
    cosine = (first @ last) / (first.norm() * last.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle < 1e-4 or torch.pi - angle < 1e-4:  # on one line there is no arc, or every one
        return torch.lerp(first, last, share)
    weights = torch.sin(torch.stack([(1 - share) * angle, share * angle])) / torch.sin(angle)
    return weights[0] * first + weights[1] * last


def changed(request: Request, word: str, other: str) -> Request:
    """Return the request with one word of its caption, wherever it stands, exchanged for another."""
    caption = swap(request.caption, word, other)
    return replace(request, caption=caption)


def swap(caption: str, word: str, other: str) -> str:
    """Return a caption with one of its words exchanged; InputError where it is not there or nothing is given for it."""
    if not word.strip() or not other.strip():
        raise InputError("choose a word of the caption, and another for its place")
    if len(other) > LONGEST_WORD:
        raise InputError(f"{len(other):,} characters in a word's place; give at most {LONGEST_WORD}")
    caption, word = normalize("NFC", caption), normalize("NFC", word)
    place = re.compile(rf"(?<![^\W_]){re.escape(word)}(?![^\W_])", re.IGNORECASE)
    if not place.search(caption):
        raise InputError(f'"{one_line(word, 40)}": no word of the caption; choose one that stands there')
    return place.sub(lambda _: other.strip(), caption)


def _stamp(path: Path, source: str) -> tuple:
    """Return what changes when a file does, or when the run that `source` names has another newest checkpoint."""
    newest = Run(path.parents[1]).checkpoints()[-1:] if path.parent.name == "checkpoints" else []
    read = [path, *(files_beside(path) if is_released(source) else [])]
    sizes = [(one, one.stat().st_size, one.stat().st_mtime_ns) for one in read if one.is_file()]
    return path, sizes, source.endswith(".safetensors") or newest


def _noise(sampler: Sampler, request: Request) -> Tensor:
    """Return the noise (Z,) of a request's first picture."""
    generator = torch.Generator().manual_seed(request.seed)
    return sampler.noise(request.count, generator, truncation=request.truncation)[0]


@lru_cache(maxsize=64)
def _task_of(name: str) -> str:
    """Return which task shipped weights are of."""
    return read_about(Path(WEIGHTS / f"{name}.safetensors"))["recipe"]["task"]
