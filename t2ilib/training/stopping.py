"""Ending a run in order: a signal lets the loop finish its step and write a checkpoint, from which it goes on later.

Nothing is installed outside `stoppable`: in a notebook an interrupt stays what it is.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from t2ilib.training.bar import say

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_loops: list[list[int] | None] = []  # for each loop that must not be left within a step: the signals that wait for it
_blocks: list[None] = []  # `stoppable` ones that are open


class Stopped(Exception):
    """A signal has ended what was under way, in order; `number` is its number."""

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into `Stopped`, raised where no step is left half done.

    The second one ends the process at once, as it would have without this. A signal that is ignored, as SIGHUP under
    nohup, stays ignored.
    """
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if not _loops or _loops[-1] is None:
            raise Stopped(number)
        _loops[-1].append(number)
        say("finishing this step and writing a checkpoint; once more ends at once")

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in heard}
    _blocks.append(None)
    try:
        yield
    finally:
        _blocks.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def listening() -> bool:
    """Whether a signal ends what this process does in order."""
    return bool(_blocks)


@contextmanager
def undivided() -> Iterator[list[int]]:
    """Yield the list of signals that ask for the end; they raise `Stopped` when the block is left, not inside it."""
    waiting: list[int] = []
    _loops.append(waiting)
    try:
        yield waiting
    finally:
        _loops[:] = [other for other in _loops if other is not waiting]  # a generator may be left in any order
    if waiting:
        raise Stopped(waiting[0])


@contextmanager
def divided(waiting: list[int]) -> Iterator[None]:
    """Inside `undivided`, hold what may be left anywhere: a signal, one of those that wait, too, raises `Stopped`."""
    _loops.append(None)
    try:
        if waiting:
            raise Stopped(waiting[0])
        yield
    finally:
        del _loops[max(place for place, loop in enumerate(_loops) if loop is None)]
