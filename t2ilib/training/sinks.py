"""Where records go besides `records.jsonl`: a progress bar, TensorBoard, another process."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from t2ilib.training.run import Run


def progress(records: Iterable[dict], steps: int) -> Iterator[dict]:
    """Pass records on and draw a progress bar with the latest loss terms on standard error."""
    with tqdm(total=steps, unit="step", dynamic_ncols=True) as bar:
        for record in records:
            if bar.n == 0:  # a resumed run starts where it stopped
                bar.reset(total=steps)
            bar.update(record["step"] - bar.n)
            losses = {name: f"{value:.3g}" for name, value in record.items() if "/" in name}
            bar.set_postfix(losses, refresh=False)
            yield record


def tensorboard(records: Iterable[dict], folder: str | Path) -> Iterator[dict]:
    """Pass records on and write every number to TensorBoard files in `folder`."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for record in records:
            for name, value in record.items():
                if name != "step" and isinstance(value, (int, float)):
                    writer.add_scalar(name, value, record["step"])
            yield record


def follow(run: Run, alive=lambda: True, every: float = 1.0) -> Iterator[dict]:
    """Yield the records that another process writes to `run`, until its last step or until `alive()` is false.

    Attach from a notebook, interrupt, attach again: the training process does not notice.
    """
    seen = 0
    steps = run.recipe.training.steps
    while True:
        running = alive()
        records = run.records()
        yield from records[seen:]
        seen = len(records)
        if not running or (records and records[-1]["step"] >= steps):
            return
        time.sleep(every)
