"""Many command lines a second: a process that has imported everything forks itself for each of them.

Every child has limits of time and memory of its own, so that what hangs or swells is an answer like any other.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import pytest

GIB = 1 << 30
ALLOWED = 3 * GIB  # address space of a child beyond that of the process it comes from
SWOLLEN = 1.5 * GIB  # resident memory beyond what it has from its start that nothing small needs
STATM = Path("/proc/self/statm")  # sizes of this process in pages: virtual, resident, shared
PATIENCE = 10.0  # seconds of computing after which an error comes late
REFUSED, LATE, TRACEBACK, BLOW_UP, ACCEPTED = (
    "refused clearly",
    "late or many lines",
    "traceback",
    "blow-up",
    "accepted",
)


@dataclass(frozen=True)
class Answer:
    """How one command line ended: status (negative: a signal), output, errors, seconds of computing, bytes."""

    status: int
    out: str
    err: str
    seconds: float
    memory: int
    timed_out: bool

    @property
    def kind(self) -> str:
        """What a user would say of it."""
        if self.timed_out or self.status < 0 or self.memory > SWOLLEN or "MemoryError" in self.err:
            return BLOW_UP
        if "Traceback (most recent call last)" in self.err + self.out:
            return TRACEBACK
        if self.status == 0:
            return ACCEPTED
        lines = [line for line in self.err.splitlines() if line.strip()]
        usage = bool(lines) and lines[0].startswith("Usage: ")  # the command line's own answer to unknown options
        clear = self.status == 2 and (usage or (len(lines) == 1 and lines[0].startswith("error: ")))
        return REFUSED if clear and self.seconds < PATIENCE else LATE


class Forked:
    """The process that forks; `ask` runs `t2i ARGUMENTS` in a child of it."""

    def __init__(self, environment: dict[str, str]):
        if not STATM.exists():
            pytest.skip(f"no {STATM} here, by which the memory of the commands is bounded")
        command = [sys.executable, str(Path(__file__).resolve())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, env=os.environ | environment, text=True)

    def ask(self, *arguments: object, folder: Path, seconds: float = 60.0) -> Answer:
        """Run a command line in a folder; after `seconds` it is killed."""
        request = {"arguments": [str(argument) for argument in arguments], "folder": str(folder), "seconds": seconds}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return Answer(**json.loads(self.process.stdout.readline()))

    def close(self) -> None:
        """End the process, which waits for a request and has nothing to finish."""
        self.process.kill()
        self.process.communicate()


def _serve() -> None:
    """Answer requests, a JSON line each, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    _import_everything()
    for line in sys.stdin:
        answers.write(json.dumps(_answer(**json.loads(line))) + "\n")
        answers.flush()


def _import_everything() -> None:
    import torch

    import t2ilib.cli
    import t2ilib.figures
    import t2ilib.official
    import t2ilib.training.launch
    import t2ilib.training.sinks  # noqa: F401

    torch.set_num_threads(1)


def _answer(arguments: list[str], folder: str, seconds: float) -> dict:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = _own()
        child = os.fork()
        if child == 0:
            _run(arguments, folder, out.fileno(), err.fileno())
        end, timed_out = time.monotonic() + seconds, False
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            if not timed_out and time.monotonic() > end:
                timed_out = True
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.01)
        _, status, used = ended
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read(1 << 20).decode("utf-8", "replace"))
        return {
            "status": os.waitstatus_to_exitcode(status),
            "out": texts[0],
            "err": texts[1],
            "seconds": used.ru_utime + used.ru_stime,
            "memory": used.ru_maxrss * 1024 - before,  # KiB, where there is a STATM
            "timed_out": timed_out,
        }


def _run(arguments: list[str], folder: str, out: int, err: int) -> None:
    """Be the child: run the command line with limits, and end."""
    from t2ilib.cli import main

    status = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, file in enumerate((out, err), start=1):
            os.dup2(file, number)
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_AS, (_virtual() + ALLOWED,) * 2)
        sys.argv = ["t2i", *arguments]
        main()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _virtual() -> int:
    return _pages()[0] * resource.getpagesize()


def _own() -> int:
    """Return the resident bytes that a child has from its start: not those of files, mostly libraries."""
    _, resident, of_files, *_ = _pages()
    return (resident - of_files) * resource.getpagesize()


def _pages() -> list[int]:
    return [int(count) for count in STATM.read_text().split()]


if __name__ == "__main__":
    _serve()
