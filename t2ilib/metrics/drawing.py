"""What an evaluation draws: captions, noise, batches, and which process takes which of them.

All depends on a seed alone, not on the size of a batch or the number of processes.
"""

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from t2ilib.data.captioned import CaptionedImages
from t2ilib.devices import CPU_BATCH, GPU_BATCH, return_freed_memory, this_process
from t2ilib.encoders.encoder import TextEncoder
from t2ilib.errors import InputError
from t2ilib.settings import SEED, TRUNCATION, Range, check_ranges
from t2ilib.task import Painter

Item = TypeVar("Item")
TIDY = 1000  # pictures


@dataclass(frozen=True)
class EvaluationSettings:
    """What is drawn for an evaluation."""

    n: Annotated[int, Range(least=1, most=10_000_000)] = 1000  # pictures, one caption each; the literature's is 30,000
    seed: Annotated[int, SEED] = 0  # of the choice of captions, the noise, R-precision's rivals
    batch_size: Annotated[int, Range(least=0, most=1_000_000)] = 0  # 0: what the device does fastest
    diversity_captions: Annotated[int, Range(least=1, most=1_000_000)] = 32  # of which several pictures are drawn
    per_caption: Annotated[int, Range(least=2, most=10_000)] = 8  # how many
    truncation: float | None = None  # of the noise, as in System.noise; None: plain normal noise
    candidates: Annotated[int, Range(least=2, most=10_000)] = 100  # captions ranked in R-precision, the true one too

    def __post_init__(self) -> None:
        """Raise InputError for numbers that nothing can be measured with."""
        check_ranges(self, "evaluation.")
        if self.truncation is not None and not TRUNCATION.holds(self.truncation):
            raise InputError(f"evaluation.truncation = {self.truncation}: must be {TRUNCATION}")


@dataclass(frozen=True)
class Team:
    """The processes that measure together: each takes every `size`-th batch, and all know in the end what each saw."""

    rank: int = 0
    size: int = 1

    @classmethod
    def here(cls) -> "Team":
        """Return all processes that torchrun has started, this one among them."""
        process = this_process()
        return cls(process.process_index, process.num_processes)

    def share(self, parts: list[Item]) -> list[Item]:
        """Return what this process takes of a list that is equal in all."""
        return parts[self.rank :: self.size]

    def gathered(self, own: list[Item]) -> list[Item]:
        """Return what all processes made of their shares, in the order of the whole; all must ask."""
        if self.size == 1:
            return own
        lists: list[list[Item]] = [[] for _ in range(self.size)]
        dist.all_gather_object(lists, own)
        return [lists[place % self.size][place // self.size] for place in range(sum(map(len, lists)))]

    def collected(self, own: Item) -> list[Item]:
        """Return, in the first process, what each has, by rank, and nothing in the others; all must ask."""
        if self.size == 1:
            return [own]
        found: list[Item] | None = [own] * self.size if self.rank == 0 else None
        dist.gather_object(own, found)
        return found or []


ALONE = Team()


def choose_captions(dataset: CaptionedImages, settings: EvaluationSettings) -> tuple[np.ndarray, list[str]]:
    """Choose `settings.n` pictures (each once, until all are used) and one caption of each; rows (n,) and captions."""
    if not len(dataset):
        raise InputError("dataset: no pictures to evaluate on; choose another split")
    rng = np.random.default_rng(settings.seed)
    rounds = -(-settings.n // len(dataset))
    rows = np.concatenate([rng.permutation(len(dataset)) for _ in range(rounds)])[: settings.n]
    return rows, [dataset.captions[row][rng.integers(len(dataset.captions[row]))] for row in rows]


def halves(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of two disjoint halves of `count` pictures, each in order; the second may have one more."""
    rows = np.random.default_rng(seed).permutation(count)
    return np.sort(rows[: count // 2]), np.sort(rows[count // 2 :])


def paint(
    painter: Painter,
    captions: list[str],
    encoder: TextEncoder,
    settings: EvaluationSettings,
    stream: int = 0,
    team: Team = ALONE,
) -> Iterator[Tensor]:
    """Yield one picture per caption in batches (B, 3, H, W) in [-1, 1]; noise depends on seed and stream alone.

    Of a team each process paints its share of the batches.
    """
    generator = torch.Generator().manual_seed(settings.seed * 1000 + stream)
    noise = painter.noise(len(captions), generator, truncation=settings.truncation)
    for part in team.share(parts_of(np.arange(len(captions)), encoder, settings)):
        text = encoder.encode([captions[row] for row in part])
        with torch.no_grad():
            yield _bounded(painter.generate(text, noise[part].to(text.sentence.device)).float())


def _bounded(painted: Tensor) -> Tensor:
    """Return pictures cut to [-1, 1]; InputError where there is nothing to cut, but NaN or infinity."""
    if not painted.isfinite().all():
        raise InputError("pictures: some are NaN or infinite; take another checkpoint")
    return painted.clamp(-1, 1)


def parts_of(rows: np.ndarray, encoder: TextEncoder, settings: EvaluationSettings) -> list[np.ndarray]:
    """Cut rows into parts of the batch size."""
    size = settings.batch_size or (CPU_BATCH if encoder.device.type == "cpu" else GPU_BATCH)
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def tidied(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield the batches, and hand back freed memory after every thousandth picture."""
    passed = 0
    for batch in batches:
        yield batch
        passed += len(batch)
        if passed >= TIDY:
            passed = 0
            return_freed_memory()


def overlapped(batches: Iterable[Item], device: torch.device) -> Iterable[Item]:
    """Return the batches, made ahead where that is faster: by an accelerator, and by a CPU with one thread.

    Two threads to an operation use two cores already; making batches ahead then costs up to 15 % (`benchmarks`).
    """
    return ahead(batches) if device.type != "cpu" or torch.get_num_threads() == 1 else batches


def ahead(batches: Iterable[Item]) -> Iterator[Item]:
    """Yield the batches while another thread makes the next ones, two at most; its error is raised here."""
    waiting: queue.Queue = queue.Queue(1)
    ended = threading.Event()

    def tell(*news: object) -> None:
        while not ended.is_set():
            try:
                waiting.put(news, timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for batch in batches:
                tell(batch, None)
                del batch
                if ended.is_set():
                    return
            tell(None, StopIteration())
        except Exception as error:
            tell(None, error)

    threading.Thread(target=make, name="ahead", daemon=True).start()
    try:
        while True:
            batch, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield batch
            del batch
    finally:
        ended.set()
