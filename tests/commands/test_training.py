"""t2i train, resume and export: what they refuse, and paths and devices that reach the run."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from t2ilib import cli, data, files
from t2ilib.cli import app
from t2ilib.commands import training
from t2ilib.devices import this_process
from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run, TrainingSettings, load_recipe
from t2ilib.training.stopping import Stopped
from t2ilib.training.workers import WorkerError


def t2i(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def one_line(capsys, monkeypatch, *arguments):
    """What the command `t2i` writes to standard error, and its exit status."""
    monkeypatch.setattr(sys, "argv", ["t2i", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return capsys.readouterr().err, ended.value.code


@pytest.mark.parametrize(
    "device", ["", "gpu", "cuda:99", "cuda:-1", "mps:7", "meta", "cpu:x", "cuda:" + "9" * 30, "\n"]
)
@pytest.mark.parametrize("command", [["train", "gancls"], ["resume", "run"]])
def test_a_device_that_is_not_there_is_one_line_before_anything_is_written(
    command, device, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    folder = [] if command[0] == "resume" else ["--folder", "run"]
    said, status = one_line(capsys, monkeypatch, *command, *folder, "--device", device)
    assert status == 2 and said.startswith("error: device ") and said.count("\n") == 1 and "try cpu" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", ["0", "-3", "1.5", "two", "1000000"])
def test_numbers_of_processes_that_cannot_be_are_one_line(count, tmp_path, monkeypatch, capsys):
    said, status = one_line(capsys, monkeypatch, "train", "gancls", "--folder", tmp_path / "run", "--processes", count)
    assert status == 2 and said.startswith("error: ") and said.count("\n") == 1 and "processes" in said
    assert not (tmp_path / "run").exists()


def test_a_device_of_several_processes_is_their_own(tmp_path):
    done = t2i("train", "gancls", "--folder", tmp_path / "run", "--processes", "2", "--device", "cpu")
    assert isinstance(done.exception, InputError) and "leave --device out" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "Missing argument 'task'"),
        (["train", "gancls", "--stepz", "3"], "--stepz"),
        (["train", "gancls", "--steps", "many"], "--steps"),
        (["train", "stylegan"], "stylegan: no such system; choose among gancls, wgan, dfgan, galip, clip, judge"),
        (["export", "nowhere.safetensors", "--to", "x.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["export", "a.safetensors", "--to", "folder"], "of an encoder or the judge export the run folder"),
    ],
)
def test_what_is_misspelt_is_one_line(arguments, told, monkeypatch, capsys):
    said, status = one_line(capsys, monkeypatch, *arguments)
    assert status == 2 and told in said and said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "error: a file: No space left on device; what was written before"),
        (OSError(30, "Read-only file system", "/x/y"), "error: /x/y: Read-only file system; what was"),
        (WorkerError("worker 1 of 2 (log_1.txt): ValueError: x"), "error: worker 1 of 2 (log_1.txt): ValueError: x"),
    ],
)
def test_what_the_disk_or_a_worker_says_is_one_line(error, told, monkeypatch, capsys):
    def failing(*_):
        raise error

    monkeypatch.setattr(training, "_train", failing)
    said, status = one_line(capsys, monkeypatch, "train", "gancls")
    assert status == 2 and said.startswith(told) and said.count("\n") == 1


def test_a_signal_ends_with_its_status(tmp_path, monkeypatch, capsys):
    def stopped(*_):
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(training, "_train_here", stopped)
    said, status = one_line(capsys, monkeypatch, "train", "gancls", "--folder", tmp_path)
    assert status == 143 and said == f"stopped by SIGTERM; t2i resume {tmp_path} goes on from the last checkpoint\n"


def test_the_device_reaches_the_run(tmp_path, monkeypatch):
    before, seen = this_process().device, []
    monkeypatch.setattr("t2ilib.experiment.run_recipe", lambda *_: iter(seen.append(this_process().device) or []))
    try:
        done = t2i("train", "gancls", "--folder", tmp_path, "--device", "cpu:0")
    finally:
        this_process().device = before
    assert done.exit_code == 0, done.output
    assert seen == [torch.device("cpu:0")]


def test_relative_pictures_are_those_of_the_folder_one_is_in(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(training, "_train", lambda recipe, folder, *_: given.append((recipe.data.source, folder)))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.zip").touch()
    (tmp_path / "data" / "birds").mkdir(parents=True)
    recipe = load_recipe("gancls_toy", **{"data.source": "data/birds"})
    (tmp_path / "mine.yaml").write_text(recipe.to_yaml())
    for more in (["--data", "birds.zip"], ["--data", "toy"], ["--data", "gone.zip"], ["--recipe", "mine.yaml"]):
        assert t2i("train", "gancls", "--folder", "here", *more).exit_code == 0
    found = [str(tmp_path / "birds.zip"), "toy", "gone.zip", str(tmp_path / "data" / "birds")]
    assert [source for source, _ in given] == found
    assert {folder for _, folder in given} == {Path("here")}


def test_recipes_pictures_are_those_under_the_data_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    for place in ("store", "data"):
        (tmp_path / place / "birds").mkdir(parents=True)
    assert data._located("data/birds") == tmp_path / "store" / "birds"
    (tmp_path / "store" / "birds").rmdir()
    assert data._located("data/birds") == Path("data/birds")
    for other in ("birds", "data", "elsewhere/data/birds", str(tmp_path / "data" / "birds")):
        assert data._located(other) == Path(other)


def test_a_run_that_several_processes_would_train_is_held_by_their_parent(tmp_path, monkeypatch):
    from t2ilib.training.lock import Owner, owner

    def together(run, processes, command, environment, lock):
        assert owner(run.folder) == Owner(os.getpid(), listens=True) and not lock.closed
        assert processes == 2 and command[-1] == str(run.folder.resolve())
        assert run.recipe.training.steps == 7

    monkeypatch.setattr("t2ilib.training.workers.train_together", together)
    done = t2i("train", "gancls", "--folder", tmp_path / "run", "--processes", "2", "--steps", "7")
    assert done.exit_code == 0, done.exception
    assert "log.txt" in done.output and "7 steps are done" in done.output


def test_more_steps_are_asked_for_of_a_finished_run(tmp_path):
    recipe = Recipe("gancls", training=TrainingSettings(steps=10, log_every=1))
    run = Run.create(tmp_path, recipe)
    run.append({"step": 10})
    run.save(10, {"x": torch.zeros(1)}, {})
    done = t2i("resume", tmp_path, "--steps", "4")
    assert isinstance(done.exception, InputError) and "10 steps are done" in str(done.exception)
    assert run.recipe.training.steps == 10


def test_help_needs_no_library():
    code = "import sys; from t2ilib.cli import app; app(['train', '--help'], standalone_mode=False); "
    code += "sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_a_reader_that_has_read_enough_is_no_error():
    """As `t2i list | head -1`: quiet, on both outputs."""
    command = [sys.executable, "-u", "-m", "t2ilib.cli", "list"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.close()
    assert child.stderr.read() == "" and child.wait(timeout=60) == 1
