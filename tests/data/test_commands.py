"""`t2i data`, and `--allow-missing` of the commands that read pictures."""

import json
import sys
from types import SimpleNamespace

import pytest
from PIL import Image
from typer.testing import CliRunner

from t2ilib import cli, files, measurement, sampling
from t2ilib.commands import training
from t2ilib.errors import InputError
from t2ilib.training import Recipe

ESCAPE = "\x1b]0;gotcha\x07\x1b[2Ja \u202ered bird"


@pytest.fixture
def birds(tmp_path, monkeypatch):
    """A folder of two listed pictures, of which one is there, with a caption that a terminal would obey."""
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    folder = tmp_path / "birds"
    folder.mkdir()
    rows = [{"file_name": name, "text": ESCAPE, "class": ESCAPE, "class_id": 1} for name in ("a.png", "b.png")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    return folder


def lines(output):
    assert all(line.isprintable() for line in output.split("\n"))
    return output.splitlines()


def test_data_shows_captions_that_a_terminal_would_obey_and_the_packed_set(birds, tmp_path):
    done = CliRunner().invoke(cli.app, ["data", str(birds), "--allow-missing", "--size", "16"])
    assert done.exit_code == 0, done.output
    *_, caption, packed = lines(done.output)
    assert caption == r'first caption: "\x1b]0;gotcha\x07\x1b[2Ja \u202ered bird"'
    assert packed == f"packed: {next((tmp_path / 'data' / 'packed').iterdir())}"


def refusal(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["t2i", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    shown = capsys.readouterr()
    assert not shown.out
    (line,) = lines(shown.err)
    return line


def test_an_error_shows_names_that_a_terminal_would_obey(birds, monkeypatch, capsys):
    rows = [{"file_name": "a.png", "text": "x", "class": name, "class_id": 1} for name in (ESCAPE, "wren")]
    rows[1]["file_name"] = "b.png"
    Image.new("RGB", (16, 16)).save(birds / "b.png")
    (birds / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert r"\x1b]0;gotcha\x07" in refusal(monkeypatch, capsys, "data", str(birds))
    assert r"\x1b[31m" in refusal(monkeypatch, capsys, "data", "no \x1b[31m folder\n")


@pytest.mark.parametrize("size", ["100000", "0", "-1"])
def test_impossible_sizes_are_one_line(monkeypatch, capsys, size):
    line = refusal(monkeypatch, capsys, "data", "toy", "--size", size)
    assert line == f"error: size: {size}; give the side of the pictures in pixels, 1 to 1024"


def test_missing_pictures_are_one_line(birds, monkeypatch, capsys):
    line = refusal(monkeypatch, capsys, "data", str(birds))
    assert "1 of 2 pictures are missing, the first is b.png" in line and "--allow-missing" in line


@pytest.mark.parametrize("more", [[], ["--set", "data.options={held_out: 1}"]])
def test_train_takes_what_is_there(birds, monkeypatch, more):
    started = []
    monkeypatch.setattr(training, "_train", lambda recipe, *_: started.append(recipe))
    command = ["train", "gancls", "--data", str(birds), "--allow-missing", *more]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0, done.output
    assert started[0].data.options == ({"held_out": 1} if more else {}) | {"allow_missing": True}


def test_evaluate_takes_what_is_there(birds, tmp_path, monkeypatch):
    class Loaded(Exception):
        pass

    def load(*given, **options):
        raise Loaded(*given, options)

    sampler = SimpleNamespace(recipe=Recipe("gancls").override(**{"data.options": {"seed": 3}}))
    monkeypatch.setattr(sampling, "load_sampler", lambda *_: sampler)
    monkeypatch.setattr(measurement.data, "load", load)
    for given, options in (
        (["--data", str(birds)], {}),
        (["--data", str(birds), "--allow-missing"], {"allow_missing": True}),
        (["--allow-missing"], {"seed": 3, "allow_missing": True}),
    ):
        done = CliRunner().invoke(cli.app, ["evaluate", "gancls_toy", *given])
        assert isinstance(done.exception, Loaded) and done.exception.args[-1] == options, done.output
    assert not isinstance(done.exception, InputError)
