"""A full disk, and folders that cannot be written: one line names the path, and what was there is whole."""

import os
import resource
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from t2ilib import cli, encoders, plots
from t2ilib.commands import training
from t2ilib.data.toy import toy_birds
from t2ilib.errors import InputError
from t2ilib.files import write_json
from t2ilib.metrics.results import write_result
from t2ilib.training import Recipe, Run, load_recipe
from t2ilib.training.lock import writing
from t2ilib.training.sinks import tensorboard
from t2ilib.training.stopping import stoppable
from t2ilib.weights import save_tensors

pytestmark = pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit of file sizes")


@contextmanager
def room_for(count):
    """Let no file grow beyond `count` bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def encoded(folder):
    birds = toy_birds(size=32, train=4, validation=1, test=1)
    encoders.encode_dataset(encoders.load_encoder("toy-clip"), birds, cache_folder=folder)


PICTURES = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), dtype=np.uint8)
WRITERS = {
    "a record": lambda folder: Run(folder).append({"step": 1, "generator/fake": 0.5}),
    "a recipe": lambda folder: Run.create(folder, Recipe("gancls")),
    "a checkpoint": lambda folder: Run(folder).save(1, {"x": torch.zeros(9)}, {}),
    "weights": lambda folder: save_tensors(folder / "x.safetensors", {"x": torch.zeros(99)}),
    "a sheet of pictures": lambda folder: plots.contact_sheet(PICTURES, path=folder / "samples.png"),
    "a figure": lambda folder: plots.save_figure(plots.contact_sheet(PICTURES), "x", "t2i figures", folder=folder),
    "a result": lambda folder: write_result(folder, {"x": 1.0}, {}),
    "encoded captions": encoded,
    "numbers": lambda folder: write_json(folder / "x.json", {"x": 1}),
    "a lock": lambda folder: writing(folder).__enter__(),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_without_room_the_path_is_named_and_the_old_file_stays(write, tmp_path):
    if write is not WRITERS["a lock"]:
        Run.create(tmp_path, Recipe("gancls"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match=str(tmp_path)) as error, room_for(3):
        write(tmp_path)
    told = str(error.value)
    assert "\n" not in told and "cannot be written" in told
    assert any(word in told for word in ("unchanged", "safe", "no step was taken"))
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_folder_that_cannot_be_made_is_named(write, tmp_path):
    (tmp_path / "file").write_text("thesis")
    with pytest.raises(InputError, match=str(tmp_path / "file")):
        write(tmp_path / "file" / "deeper")
    assert (tmp_path / "file").read_text() == "thesis"


def test_tensorboard_without_room_is_one_line_and_no_thread_complains(tmp_path, monkeypatch):
    complaints = []
    monkeypatch.setattr(threading, "excepthook", complaints.append)
    many = ({"step": step, **{f"x/{i}": 0.5 for i in range(50)}} for step in range(1, 2000))
    with pytest.raises(InputError, match="tensorboard: cannot be written"), stoppable(), room_for(2000):
        list(tensorboard(many, tmp_path / "tensorboard"))
    assert not complaints


@pytest.mark.parametrize("command", ["train", "sample"])
def test_the_command_line_says_one_line(command, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    if command == "train":
        arguments = ["train", "gancls", "--folder", str(folder)]
    else:
        arguments = ["sample", "gancls_toy", "a red bird.", "--out", str(tmp_path / "x.png")]
    monkeypatch.setattr(sys, "argv", ["t2i", *arguments])
    with pytest.raises(SystemExit) as ended, room_for(3):
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and said.startswith(f"error: {tmp_path}") and said.count("\n") == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_only_be_read_is_named(tmp_path):
    run = Run.create(tmp_path / "run", load_recipe("gancls_toy"))
    os.chmod(run.folder, 0o500)
    with pytest.raises(InputError, match=f"{run.folder}.*cannot be written"):
        training._train(run.recipe, run.folder)
