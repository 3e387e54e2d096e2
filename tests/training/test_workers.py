"""Several processes end together, whoever ends first; small programs stand for the workers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run
from t2ilib.training import workers as module
from t2ilib.training.launch import command, environment
from t2ilib.training.lock import held, writing
from t2ilib.training.stopping import Stopped, stoppable
from t2ilib.training.workers import PARENT, WorkerError, check_processes, end_with_parent, printed, train_together

HEAD = (
    "import os, signal, sys, time\nrank = int(os.environ['RANK'])\nopen(f'{rank}.pid', 'w').write(str(os.getpid()))\n"
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "PATIENCE", 3.0)
    return Run.create(tmp_path / "run", Recipe("gancls"))


def together(run, script, count=2):
    with writing(run.folder) as lock:
        train_together(run, count, [sys.executable, "-c", HEAD + script], dict(os.environ), lock)


def all_gone(count=2):
    numbers = [int(Path(f"{rank}.pid").read_text()) for rank in range(count)]
    return not any(alive(number) for number in numbers)


def alive(number):
    try:
        os.kill(number, 0)  # asks only
    except ProcessLookupError:
        return False
    return True


def test_workers_find_each_other_and_leave_their_words_in_logs(run):
    together(run, "print(rank, *(os.environ[n] for n in ('WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR')), flush=True)")
    assert printed(run.folder / "log.txt") == ["0 2 0 127.0.0.1"]
    assert printed(run.folder / "log_1.txt") == ["1 2 1 127.0.0.1"]


@pytest.mark.parametrize(
    ("fall", "told"),
    [
        ("sys.exit('error: birds.zip: no such source')", "birds.zip: no such source"),
        ("raise RuntimeError('out of memory')", "RuntimeError: out of memory"),
        ("sys.stderr.write('[rank1]: ValueError: bad\\n[W101] teardown\\n'); os._exit(1)", "ValueError: bad"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
        ("os._exit(7)", "it ended without a word"),
    ],
    ids=["bad input", "exception", "torch's own lines", "killed", "silent"],
)
@pytest.mark.parametrize("others", ["time.sleep(60)", "time.sleep(0.8); raise ConnectionError('closed by peer')"])
def test_the_first_that_fails_is_named_and_takes_the_others_along(run, fall, told, others):
    (run.folder / "log_1.txt").write_text("OSError: of an earlier attempt\n")
    with pytest.raises(WorkerError, match=rf"^worker 1 of 2 \(.*log_1\.txt\): {told}") as error:
        together(run, f"if rank == 1:\n    time.sleep(0.3)\n    {fall}\n{others}")
    assert "\n" not in str(error.value) and all_gone()


def test_a_worker_that_does_not_listen_is_killed(run):
    with pytest.raises(WorkerError, match="worker 1 of 2"):
        together(run, "if rank: sys.exit('error: x')\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)")
    assert all_gone()


def test_the_first_worker_holds_the_folder_when_its_parent_is_killed(run):
    parent = os.fork()
    if parent == 0:
        together(run, "time.sleep(60)")
        os._exit(0)
    while not (Path("0.pid").is_file() and Path("0.pid").read_text() and Path("1.pid").is_file()):
        time.sleep(0.05)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert held(run.folder)
    with pytest.raises(InputError, match="is being trained already"), writing(run.folder):
        pytest.fail("two writers")
    for rank in (1, 0):
        assert held(run.folder)
        os.kill(int(Path(f"{rank}.pid").read_text()), signal.SIGKILL)
    end = time.monotonic() + 5
    while held(run.folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert not held(run.folder)


def test_a_signal_is_passed_on_once_and_the_checkpoint_waited_for(run):
    script = """
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
if rank == 0:
    time.sleep(0.5)
    os.kill(os.getppid(), signal.SIGINT)
while not told:
    time.sleep(0.05)
time.sleep(4 if rank == 0 else 0)  # longer than the others are given
open(f"{rank}.checkpoint", "w").write(str(len(told)))
sys.exit(143)
"""
    with pytest.raises(Stopped) as stopped, stoppable():
        together(run, script)
    assert stopped.value.number == signal.SIGINT and all_gone()
    assert [Path(f"{rank}.checkpoint").read_text() for rank in (0, 1)] == ["1", "1"]


@pytest.mark.parametrize("deaf", [False, True])
def test_no_worker_outlives_who_started_it(deaf, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            os.environ[PARENT] = str(os.getppid())
            signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
            end_with_parent()
            os.write(write, b"x")
            time.sleep(60)
            os._exit(0)
        time.sleep(60)
        os._exit(0)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    before = time.monotonic()
    assert os.read(read, 1) == b""  # the worker's end is closed: it is gone
    assert time.monotonic() - before < 30
    os.close(read)


@pytest.mark.parametrize("count", [0, -3, 10**6])
def test_no_more_processes_than_devices_and_at_least_one(count):
    with pytest.raises(InputError, match=f"processes: {count} "):
        check_processes(count)


def test_a_child_works_where_its_parent_does_and_finds_the_library(tmp_path):
    (tmp_path / "typer.py").write_text("raise SystemExit('a file of the working folder was imported')")
    told = subprocess.run(
        [sys.executable, "-m", "t2ilib.cli", "--version"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if sys.version_info >= (3, 11):
        assert told.stdout.startswith("t2ilib "), told.stderr
    assert command(Run("run"), 2)[3:] == ["resume", str(tmp_path.cwd() / "run"), "--processes", "2"]
