"""The progress bar on the terminal: loss terms, pictures per second, and what goes on while it stands."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_bars: list[tqdm] = []  # those that are drawn now, the innermost last


def progress(records: Iterable[dict], steps: int, what: str = "") -> Iterator[dict]:
    """Pass records on and draw a progress bar of `what` with the loss terms on standard error.

    The bar is closed before an error passes, so that what is said of it stands on a line of its own.
    """
    bar = None
    try:
        for record in records:
            if bar is None:  # not before the first record: bad input is reported without a bar above it
                bar = tqdm(total=steps, initial=record["step"], unit="step", desc=what or None, dynamic_ncols=True)
                _bars.append(bar)
            bar.set_postfix(_shown(record), refresh=False)
            bar.update(record["step"] - bar.n)
            yield record
    finally:
        if bar is not None:
            _bars.remove(bar)
            bar.close()


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Show on the bar, where there is one, what the run does inside this block: "evaluating", "writing"."""
    bar = _bars[-1] if _bars else None
    if bar is None:
        yield
        return
    before = (bar.desc or "").removesuffix(": ")
    bar.set_description(f"{before}: {what} ..." if before else f"{what} ...")
    try:
        yield
    finally:
        bar.set_description(before or None)


def say(line: str) -> None:
    """Write a line to standard error, above the bar where there is one."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()


def _shown(record: dict) -> dict[str, str]:
    terms = {name: value for name, value in record.items() if "/" in name and not name.startswith("metric/")}
    speed = {"pictures/s": record["images_per_second"]} if "images_per_second" in record else {}
    return {name: f"{value:.3g}" for name, value in (speed | terms).items()}
