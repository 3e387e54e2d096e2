"""Ending a run in order: a signal lets the loop finish its step and write a checkpoint, from which it goes on later.

Nothing is installed outside `stoppable`: in a notebook an interrupt stays what it is.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from t2ilib.training.bar import say

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_loops: list[list[int]] = []  # for each loop that must not be left within a step: the signals that wait for it


class Stopped(Exception):
    """A signal has ended what was under way, in order; `number` is its number."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into `Stopped`, raised where no step is left half done.

    The second one ends the process at once, as it would have without this.
    """
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if not _loops:
            raise Stopped(number)
        _loops[-1].append(number)
        say("finishing this step and writing a checkpoint; once more ends at once")

    before = {number: signal.signal(number, receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def undivided() -> Iterator[list[int]]:
    """Yield the list of signals that ask for the end; they raise `Stopped` when the block is left, not inside it."""
    _loops.append([])
    try:
        yield _loops[-1]
    finally:
        waiting = _loops.pop()
    if waiting:
        raise Stopped(waiting[0])
