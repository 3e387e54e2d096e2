"""Where records go besides `records.jsonl` and the progress bar: TensorBoard, another process."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

from t2ilib.errors import unwritten
from t2ilib.training.run import Run


def tensorboard(records: Iterable[dict], folder: str | Path) -> Iterator[dict]:
    """Pass records on and write every number to TensorBoard files in `folder`; InputError where that fails."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, and only this sink needs it

    records = iter(records)
    first = next(records, None)  # nothing is written for a run that does not begin
    if first is None:
        return
    with ExitStack() as closing:
        with _named(folder):
            closing.enter_context(_silent_threads())
            writer = SummaryWriter(str(folder))
        closing.callback(_close, writer, folder)
        for record in chain([first], records):
            with _named(folder):
                for name, value in record.items():
                    if name != "step" and isinstance(value, (int, float)):
                        writer.add_scalar(name, value, record["step"])
            yield record


def follow(run: Run, alive: Callable[[], bool] | None = None, every: float = 1.0) -> Iterator[dict]:
    """Yield the records that another process writes to `run`, looking every `every` seconds.

    Ends when `alive()` is false, thus after the last checkpoint; without `alive`, with the last step. A record that a
    continued run writes again comes once. Attach from a notebook, interrupt, attach again: the training process does
    not notice.
    """
    step, ended = 0, False
    while not ended:
        ended = not alive() if alive else step >= run.recipe.training.steps
        for record in run.records():
            if record["step"] > step:
                step = record["step"]
                yield record
        if not ended:
            time.sleep(every)


@contextmanager
def _named(folder: str | Path) -> Iterator[None]:
    """Turn what a file system refuses into an InputError that names the folder."""
    try:
        yield
    except OSError as error:
        remedy = "records and checkpoints are safe; make room, and the same command goes on"
        raise unwritten(folder, error, remedy) from error


def _close(writer: Any, folder: str | Path) -> None:
    if sys.exc_info()[0] is None:
        with _named(folder):
            writer.close()
        return
    with suppress(OSError):  # what has ended the run is said, not what follows from it
        writer.close()


@contextmanager
def _silent_threads() -> Iterator[None]:
    """Leave unsaid what TensorBoard's thread meets on the disk: the writer raises it again."""
    before = threading.excepthook
    threading.excepthook = lambda found: None if issubclass(found.exc_type, OSError) else before(found)
    try:
        yield
    finally:
        threading.excepthook = before
