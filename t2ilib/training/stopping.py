"""Ending a run in order: a signal lets the loop finish its step and write a checkpoint, from which it goes on later.

Nothing is installed outside `stoppable`: in a notebook an interrupt stays what it is.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from t2ilib.training.bar import say

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_blocks: list[None] = []  # `stoppable` ones that are open


class Stopped(BaseException):
    """A signal has ended what was under way, in order; `number` is its number.

    It is no `Exception`, so that nobody takes it for damage of the file that was being read.
    """

    def __init__(self, number: int):
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@dataclass
class Held:
    """What waits for the end of a block."""

    told: str
    signals: list[int] = field(default_factory=list)


_held: list[Held | None] = []  # for each block that must not be left inside: the signals that wait for its end


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP into `Stopped`, raised where no step is left half done.

    The second one ends the process at once, as it would have without this. A signal that is ignored, as SIGHUP under
    nohup, stays ignored.
    """
    received: list[int] = []
    raised: list[int] = []

    def receive(number: int, _: object) -> None:
        if received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        received.append(number)
        if not _held or _held[-1] is None:
            raised.append(number)
            raise Stopped(number)
        _held[-1].signals.append(number)
        say(f"{_held[-1].told}; once more ends at once")

    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, receive) for number in heard}
    _blocks.append(None)
    try:
        yield
    except Exception as error:
        if raised:  # compiled code has made an error of its own of it
            raise Stopped(raised[0]) from error
        raise
    finally:
        _blocks.pop()
        for number, handler in before.items():
            signal.signal(number, handler)


def listening() -> bool:
    """Whether a signal ends what this process does in order."""
    return bool(_blocks)


@contextmanager
def undivided(told: str = "finishing this step and writing a checkpoint") -> Iterator[list[int]]:
    """Yield the list of signals that ask for the end; they raise `Stopped` when the block is left, not inside it.

    Inside another such block they are left to that one. `told` says on the terminal what is waited for.
    """
    held = Held(told)
    _held.append(held)
    try:
        yield held.signals
    finally:
        _held[:] = [other for other in _held if other is not held]  # a generator may be left in any order
    if held.signals and _held and _held[-1] is not None:
        _held[-1].signals.extend(held.signals)
    elif held.signals:
        raise Stopped(held.signals[0])


@contextmanager
def divided(waiting: list[int]) -> Iterator[None]:
    """Inside `undivided`, hold what may be left anywhere: a signal, one of those that wait, too, raises `Stopped`."""
    _held.append(None)
    try:
        if waiting:
            raise Stopped(waiting[0])
        yield
    finally:
        del _held[max(place for place, held in enumerate(_held) if held is None)]
