"""Where records go besides `records.jsonl`: a progress bar, TensorBoard, another process."""

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from t2ilib.training.run import Run


def progress(records: Iterable[dict], steps: int) -> Iterator[dict]:
    """Pass records on and draw a progress bar with the loss terms on standard error."""
    bar = None
    for record in records:
        if bar is None:  # not before the first record: bad input is reported without a bar above it
            bar = tqdm(total=steps, initial=record["step"], unit="step", dynamic_ncols=True)
        bar.update(record["step"] - bar.n)
        terms = {name: value for name, value in record.items() if "/" in name and not name.startswith("metric/")}
        bar.set_postfix({name: f"{value:.3g}" for name, value in terms.items()}, refresh=False)
        yield record
    if bar is not None:
        bar.close()


def tensorboard(records: Iterable[dict], folder: str | Path) -> Iterator[dict]:
    """Pass records on and write every number to TensorBoard files in `folder`."""
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - slow to import, and only this sink needs it

    records = iter(records)
    first = next(records, None)  # nothing is written for a run that does not begin
    if first is None:
        return
    with SummaryWriter(str(folder)) as writer:
        for record in chain([first], records):
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
