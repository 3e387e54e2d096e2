"""One writer per run folder, however the two were started."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run, lock
from t2ilib.training.launch import running, stop
from t2ilib.training.lock import Owner, held, owner, writing

HOLD = """
import sys, time
from pathlib import Path
from t2ilib.training.lock import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    yield child
    child.kill()
    child.wait()


def test_another_process_is_refused_until_the_first_ends(tmp_path, other):
    assert held(tmp_path) and owner(tmp_path).number == other.pid
    with pytest.raises(InputError, match="is being trained already"), writing(tmp_path):
        pytest.fail("two writers")
    assert owner(tmp_path).number == other.pid  # the refused one has not signed
    other.kill()
    other.wait()
    assert not held(tmp_path)
    with writing(tmp_path):
        assert held(tmp_path) and owner(tmp_path).number == os.getpid()
    assert not held(tmp_path)


def test_nor_does_one_process_train_twice_in_a_folder(tmp_path):
    with writing(tmp_path), pytest.raises(InputError, match="is being trained already"), writing(tmp_path / "."):
        pytest.fail("two writers")
    with writing(tmp_path):
        child = os.fork()
        if child == 0:
            lock._mine.clear()
            try:
                with writing(tmp_path):
                    os._exit(1)
            except InputError:
                os._exit(0)
        assert os.waitpid(child, 0)[1] == 0


def test_a_script_that_would_lose_its_steps_is_not_stopped(tmp_path, other):
    run = Run.create(tmp_path, Recipe("gancls"))
    assert running(run) and not owner(tmp_path).listens
    with pytest.raises(InputError, match=f"process {other.pid}, a notebook or a script.*interrupt it there"):
        stop(run)
    assert other.poll() is None and running(run)


def test_a_process_that_listens_is_stopped(tmp_path):
    run = Run.create(tmp_path, Recipe("gancls"))
    script = HOLD.replace("with writing", "from t2ilib.training.stopping import stoppable\nwith stoppable(), writing")
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    assert owner(tmp_path) == Owner(child.pid, listens=True)
    assert stop(run) and child.wait(timeout=10) != 0
    assert not running(run) and not stop(run)


def test_a_number_that_is_anothers_by_now_is_nobodys(tmp_path, other):
    """The file of a killed trainer names a process of its number, which may be anybody's today."""
    stranger = subprocess.Popen(["sleep", "60"])
    (tmp_path / "process").write_text(json.dumps({"process": stranger.pid, "listens": True}))
    try:
        assert held(tmp_path) and owner(tmp_path) is None
        with pytest.raises(InputError, match="does not say which process"):
            stop(Run(tmp_path))
        assert stranger.poll() is None and other.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_lookers_do_not_take_each_other_for_a_trainer(tmp_path):
    (tmp_path / "process").touch()
    script = "import sys\nfrom pathlib import Path\nfrom t2ilib.training.lock import held\nprint(flush=True)\n"
    script += "while True:\n    held(Path(sys.argv[1]))\n"
    looker = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        looker.stdout.readline()
        assert not any(held(tmp_path) for _ in range(20_000))
    finally:
        looker.kill()
        looker.wait()


def test_a_folder_with_files_of_no_run_is_left_alone(tmp_path):
    mine = {"process": "a list of steps", "environment.json": "{}", "thesis.md": "text"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=r"holds files and no config\.yaml"), writing(tmp_path):
        pytest.fail("took it")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == mine


@pytest.mark.parametrize("name", ["process", "records.jsonl"])
def test_no_file_elsewhere_is_written_through_a_link(tmp_path, name):
    run, elsewhere = Run.create(tmp_path / "run", Recipe("gancls")), tmp_path / "thesis.txt"
    elsewhere.write_text("four years\n")
    (run.folder / name).symlink_to(elsewhere)
    with pytest.raises(InputError, match=f"{name}|run: cannot be written"), writing(run.folder):
        run.append({"step": 1})
    assert elsewhere.read_text() == "four years\n"


def test_a_pipe_in_place_of_the_lock_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "process")
    with pytest.raises(InputError), writing(tmp_path):
        pytest.fail("wrote to a pipe")
    assert not held(tmp_path)


@pytest.mark.parametrize("text", ["1. write\n2. sleep\n", "{}", "x" * 10**6])
def test_a_list_called_process_is_not_overwritten(tmp_path, text):
    (tmp_path / "process").write_text(text)
    with pytest.raises(InputError, match="they are of no run"), writing(tmp_path):
        pytest.fail("took it")
    assert (tmp_path / "process").read_text() == text


def test_what_systems_leave_in_folders_is_in_nobodys_way(tmp_path):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".nfs0001", "lost+found"):
        (tmp_path / name).touch()
    (tmp_path / "process").write_text("4711")  # as it was signed once
    with writing(tmp_path):
        assert owner(tmp_path).number == os.getpid()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(InputError, match=f"{tmp_path}: cannot be locked .*local disk"), writing(tmp_path):
        pytest.fail("unlocked")


def test_where_there_are_no_locks_nothing_is_trained_and_all_else_works(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "fcntl", None)
    (tmp_path / "process").touch()
    assert not held(tmp_path)
    with pytest.raises(InputError, match="train on Linux, macOS or WSL"), writing(tmp_path):
        pytest.fail("unlocked")


def test_looking_does_not_disturb_who_starts(tmp_path):
    script = "import sys\nfrom pathlib import Path\nfrom t2ilib.training.lock import held\n"
    script += "while True:\n    held(Path(sys.argv[1]))\n"
    (tmp_path / "process").touch()
    lookers = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            with writing(tmp_path):
                pass
    finally:
        for looker in lookers:
            looker.kill()
            looker.wait()


@pytest.mark.parametrize("text", ["", "x", "1", "[1]", '{"process": "1"}', '{"process": -1}', "[" * 9999, "\xff\xfe"])
def test_a_lock_without_a_number_is_of_nobody(tmp_path, text):
    run = Run.create(tmp_path, Recipe("gancls"))
    (tmp_path / "process").write_text(text, encoding="latin-1" if text == "\xff\xfe" else "utf-8")
    assert owner(tmp_path) is None and not stop(run)
    with writing(tmp_path):
        assert owner(tmp_path).number == os.getpid()
