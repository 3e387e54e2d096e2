"""Several processes that train one run on this machine: started, watched and ended together.

The process that calls `train_together` holds the run's lock and trains nothing itself. Each worker writes to a log of
its own in the run folder; of the first that fails the last error is said.
"""

import os
import re
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from t2ilib.errors import InputError, unwritten
from t2ilib.training.lock import handed_on
from t2ilib.training.run import Run
from t2ilib.training.stopping import Stopped

LOG = "log.txt"  # of the first worker, and of a run that `launch` has started
PATIENCE = 30.0  # seconds that workers have to end once one of them has
LOOK = 0.1  # seconds between two looks at the workers
TOGETHER = 2.0  # seconds within which the others notice that one is gone: all of them have failed, one was the first
PARENT = "T2I_PARENT"  # environment variable that tells a worker who has started it
BAR = re.compile(r"step/s|s/step")  # in a line of the progress bar
RANK = re.compile(r"^\[rank\d+\]:\s*")  # torch writes it before the lines of a traceback
ERROR = re.compile(r"error: |[\w.]+(Error|Exception|Interrupt)\b")


class WorkerError(InputError):
    """A worker has died; the message names it and says its last error."""


@dataclass
class Worker:
    """One of the processes, and what it has printed."""

    rank: int
    log: Path
    before: int  # bytes that the log had before
    process: subprocess.Popen

    def last_error(self) -> str:
        """Return what it was killed by, or else the last error that it printed, or else its last line."""
        if self.process.returncode < 0:
            return f"killed by {signal.Signals(-self.process.returncode).name}; is the memory full?"
        lines = [RANK.sub("", line) for line in printed(self.log, self.before)] or ["it ended without a word"]
        return next((line for line in reversed(lines) if ERROR.match(line)), lines[-1]).removeprefix("error: ")


def check_processes(processes: int) -> None:
    """Raise InputError for a number of processes that this machine has no devices for."""
    if processes < 1:
        raise InputError(f"processes: {processes} must be at least 1")
    devices = torch.cuda.device_count() if torch.cuda.is_available() else max(2, os.cpu_count() or 1)
    if processes > max(1, devices):
        what = "GPUs" if torch.cuda.is_available() else "processor cores"
        raise InputError(f"processes: {processes} are more than the {devices} {what} here; give at most {devices}")


def train_together(run: Run, processes: int, command: list[str], environment: dict[str, str], lock: IO) -> None:
    """Run `command` in `processes` processes until all have ended, none of them longer than this one.

    The first, which alone writes to the run's folder, holds its open `lock`, too, in case that this process is killed.
    Raises WorkerError when one dies, after the others have ended; `Stopped` when a signal has reached this process,
    after all have finished their step and the first has written its checkpoint.
    """
    shared, workers = _rendezvous(environment, processes), []
    try:
        for rank in range(processes):
            workers.append(_started(run, rank, command, shared, lock))
        while _alive(workers) and not _fallen(workers):
            time.sleep(LOOK)
        end = time.monotonic() + TOGETHER
        while _fallen(workers) and _alive(workers) and time.monotonic() < end:
            time.sleep(LOOK)
        fallen = _fallen(workers)
    except Stopped:
        _end(workers, wait_for_first=True)
        raise
    except BaseException:
        _end(workers)
        raise
    _end(workers)
    if fallen:
        first = min(fallen, key=lambda worker: worker.log.stat().st_mtime_ns)  # who is killed writes nothing more
        raise WorkerError(f"worker {first.rank} of {processes} ({first.log}): {first.last_error()}")


def log_of(run: Run, rank: int) -> Path:
    """Return the file that a worker writes to."""
    return run.folder / (LOG if rank == 0 else f"log_{rank}.txt")


def end_with_parent() -> None:
    """End this process soon after the one that started it as a worker: with a checkpoint if it can."""
    parent = int(os.environ.get(PARENT, "0"))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    if parent:
        threading.Thread(target=watch, daemon=True).start()


def printed(path: Path, start: int = 0) -> list[str]:
    """Return the lines that a process printed to a log from byte `start` on, without empty ones and progress bars."""
    text = path.read_bytes()[start:].decode(errors="replace") if path.is_file() else ""
    lines = [line.rstrip() for line in text.replace("\r", "\n").split("\n")]
    return [line for line in lines if line and not BAR.search(line)]


def open_log(path: Path) -> IO:
    """Open a log to go on with; InputError where it cannot be written."""
    try:
        return open(path, "ab")
    except OSError as error:
        raise unwritten(path, error, "no step was taken; make room, or choose another folder") from error


def _started(run: Run, rank: int, command: list[str], shared: dict[str, str], lock: IO) -> Worker:
    path = log_of(run, rank)
    with open_log(path) as log:
        before = log.tell()
        process = subprocess.Popen(
            command,
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} | handed_on(run.folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process alone, which passes it on once
            pass_fds=[lock.fileno()] if rank == 0 else [],
        )
        return Worker(rank, path, before, process)


def _rendezvous(environment: dict[str, str], processes: int) -> dict[str, str]:
    """Return the environment in which workers find each other, and share the processor's cores."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // processes)
    return (
        {"OMP_NUM_THREADS": str(threads)}
        | environment
        | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            PARENT: str(os.getpid()),
        }
    )


def _alive(workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.process.poll() is None]


def _fallen(workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if worker.process.poll()]


def _end(workers: list[Worker], wait_for_first: bool = False) -> None:
    """Ask all to end; kill who has not within `PATIENCE`, but leave the first the time for its checkpoint."""
    for worker in _alive(workers):
        worker.process.send_signal(signal.SIGTERM)
    if workers and wait_for_first:
        workers[0].process.wait()
    end = time.monotonic() + PATIENCE
    while _alive(workers) and time.monotonic() < end:
        time.sleep(LOOK)
    for worker in _alive(workers):
        worker.process.kill()
        worker.process.wait()
