"""One writer per run folder, however the two were started."""

import os
import subprocess
import sys
import time

import pytest

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run
from t2ilib.training.launch import running, stop
from t2ilib.training.lock import held, owner, writing

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
    assert held(tmp_path) and owner(tmp_path) == other.pid
    with pytest.raises(InputError, match="is being trained by another process"), writing(tmp_path):
        pytest.fail("two writers")
    assert owner(tmp_path) == other.pid  # the refused one has not signed
    other.kill()
    other.wait()
    assert not held(tmp_path)
    with writing(tmp_path):
        assert held(tmp_path) and owner(tmp_path) == os.getpid()
    assert not held(tmp_path)


def test_any_training_process_can_be_stopped(tmp_path, other):
    run = Run.create(tmp_path, Recipe("gancls"))
    assert running(run) and stop(run)
    assert other.wait(timeout=10) == -15
    assert not running(run) and not stop(run)


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


@pytest.mark.parametrize("text", ["", "x", "12 13", "-1", "٣", "\xff\xfe"])
def test_a_lock_without_a_number_is_of_nobody(tmp_path, text):
    (tmp_path / "process").write_text(text, encoding="latin-1" if text == "\xff\xfe" else "utf-8")
    assert owner(tmp_path) is None
    assert not stop(Run(tmp_path))
    with writing(tmp_path):
        assert owner(tmp_path) == os.getpid()
