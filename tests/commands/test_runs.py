"""t2i runs, follow and stop, on run folders without a network, and on one that another process holds."""

import subprocess
import sys
import threading
import time

import pytest
import torch
from typer.testing import CliRunner

from t2ilib.cli import app
from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run, TrainingSettings
from t2ilib.training.launch import running

TRAINER = """
import os, signal, sys, time
from pathlib import Path
from t2ilib.training.lock import opened, sign, take
lock = opened(Path(sys.argv[1]))
file = lock.__enter__()
assert take(file)
sign(file, os.getpid(), listens=True)
def end(*_):
    Path(sys.argv[1], "checkpoints", "step_00000004.safetensors").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print("held", flush=True)
time.sleep(120)
"""


def begun(folder, steps=3):
    run = Run.create(folder, Recipe("gancls", training=TrainingSettings(steps=10, log_every=1)))
    for step in range(1, steps + 1):
        run.append({"step": step, "images": step, "images_per_second": 2.5, "generator/fake": 0.125})
    run.save(steps, {"x": torch.zeros(1)}, {"seconds": 1.0, "skipped": 0, "drawn": 1})
    return run


@pytest.fixture
def trained(tmp_path):
    """A run that another process trains: it writes a checkpoint when it is asked to end."""
    run = begun(tmp_path / "first")
    child = subprocess.Popen([sys.executable, "-c", TRAINER, str(run.folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "held\n"
    yield run, child
    child.kill()
    child.wait()


def t2i(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def test_stop_waits_for_the_end_and_says_what_is_safe(trained):
    run, child = trained
    done = t2i("stop", run.folder)
    assert done.exit_code == 0 and child.wait(10) == 143 and not running(run)
    assert done.output.splitlines()[-1].endswith("step_00000004.safetensors, step 4 of 10")
    again = t2i("stop", run.folder)
    assert again.exit_code == 0 and "not running; safe is" in again.output


def test_stop_does_not_guess_whom_to_end(trained):
    run, child = trained
    (run.folder / "process").write_text("nobody")
    done = t2i("stop", run.folder)
    assert isinstance(done.exception, InputError) and "does not say which process" in str(done.exception)
    assert child.poll() is None


def test_stop_and_follow_name_what_is_no_run(tmp_path):
    for command in ("stop", "follow"):
        done = t2i(command, tmp_path / "nothing")
        assert isinstance(done.exception, InputError) and "not a run folder" in str(done.exception)


def test_follow_prints_new_records_and_lines_until_the_end(trained):
    run, child = trained

    def go_on():
        time.sleep(1)
        with open(run.folder / "log.txt", "w") as log:
            log.write("\r 10%|=   | 1/10 [00:01, 2step/s]\nerror: a line of the log\n")
        run.append({"step": 4, "images": 4, "images_per_second": 2.5, "generator/fake": 0.5})
        time.sleep(2)
        child.terminate()

    thread = threading.Thread(target=go_on)
    thread.start()
    done = t2i("follow", run.folder)
    thread.join()
    lines = done.output.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["1", "2", "3", "4"]
    assert "error: a line of the log" in lines and not any("step/s" in line for line in lines)
    assert "step 4  2.5 pictures/s  generator/fake 0.5" in lines and "not running; safe is" in lines[-1]


def test_follow_ends_quietly_on_ctrl_c_and_the_run_goes_on(trained, monkeypatch):
    run, child = trained

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("t2ilib.commands.runs.time.sleep", interrupted)
    done = t2i("follow", run.folder)
    assert done.exit_code == 0 and child.poll() is None and "Abort" not in done.output


def test_runs_are_listed_and_damaged_ones_named(trained):
    run, _ = trained
    folder = run.folder.parent
    begun(folder / "second", steps=5)
    for name, text in {"broken": "a: [", "foreign": "task: 3", "empty": ""}.items():
        (folder / name).mkdir()
        (folder / name / "config.yaml").write_text(text)
    begun(folder / "torn").append({"step": "x"})
    (folder / "binary").mkdir()
    (folder / "binary" / "config.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "no run").mkdir()
    done = t2i("runs", folder)
    rows = {line.split()[0]: line for line in done.output.splitlines()}
    assert done.exit_code == 0 and set(rows) == {"first", "second", "broken", "foreign", "empty", "torn", "binary"}
    assert "gancls" in rows["first"] and "3 of 10" in rows["first"] and rows["first"].endswith("running")
    assert "5 of 10" in rows["second"] and "running" not in rows["second"]
    for name in ("broken", "foreign", "empty", "torn", "binary"):
        assert "damaged: " in rows[name] and str(folder / name) in rows[name]


def test_no_runs_yet(tmp_path):
    assert "holds no runs yet" in t2i("runs", tmp_path).output
    done = t2i("runs", tmp_path / "nowhere")
    assert isinstance(done.exception, InputError) and "no such folder" in str(done.exception)
