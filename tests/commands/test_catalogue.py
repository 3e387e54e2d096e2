"""t2i list and t2i cache."""

import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from t2ilib import files
from t2ilib.cli import app
from t2ilib.commands import catalogue
from t2ilib.data import CaptionedImages, load, open_packed, pack
from t2ilib.encoders import encode_dataset, load_encoder
from t2ilib.errors import InputError
from t2ilib.training import recipe_names
from t2ilib.training.lock import writing

SET, TEXT = "toy-64-0123abcd", f"toy-clip-{'a' * 16}-{'0' * 16}.safetensors"


def t2i(*arguments):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A data folder with a packed set and encoded captions, and much that is not of the cache."""
    monkeypatch.setattr(catalogue, "DATA", tmp_path / "data")
    monkeypatch.setattr(catalogue, "RUNS", tmp_path / "runs")
    outside = tmp_path / "elsewhere"
    paths = [tmp_path / "data" / "packed" / SET / part for part in ("images.npy", "captions.jsonl", "meta.json")]
    paths += [tmp_path / "data" / "text" / TEXT, tmp_path / "data" / "weights" / "gancls_toy.safetensors"]
    paths += [tmp_path / "data" / "packed" / "birds" / "images.npy", tmp_path / "data" / "text" / "thesis.safetensors"]
    paths += [outside / "images.npy", tmp_path / "data" / "packed" / "mine-64-0123abcd" / "thesis.txt"]
    for file in paths:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1_500_000)
    os.symlink(outside, tmp_path / "data" / "packed" / "link-64-0123abcd")
    return tmp_path


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_cache_is_listed_with_sizes(stored):
    before = files_in(stored)
    rows = t2i("cache").output.splitlines()
    assert [(row.split()[0], row.split()[1], row.split()[-1]) for row in rows] == [
        ("packed", "4.5", SET),
        ("text", "1.5", TEXT),
    ]
    assert files_in(stored) == before


@pytest.mark.parametrize(("names", "gone"), [([], 4), ([SET], 3), ([TEXT], 1)])
def test_only_what_the_library_wrote_there_is_removed(stored, names, gone):
    before = files_in(stored)
    (stored / "data" / "packed" / SET / "notes.txt").write_text("mine")
    done = t2i("cache", "--clear", *names)
    assert done.exit_code == 0 and done.output.count("removed") == (len(names) or 2)
    lost = before - files_in(stored)
    assert len(lost) == gone and all(SET in name or TEXT in name for name in lost)
    assert (stored / "data" / "packed" / SET / "notes.txt").exists()


def test_a_kill_leaves_a_set_whole_or_gone(stored, monkeypatch):
    folder = stored / "data" / "packed" / SET
    told = []

    def killed(gone):
        told.append(folder.exists())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(catalogue.shutil, "rmtree", killed)
        done = t2i("cache", "--clear", SET)
    assert told == [False] and "removed" not in done.output
    assert SET not in t2i("cache").output
    pack(birds(), folder)  # it can be made again at once
    assert len(open_packed(folder)) == 3


def birds():
    captions = [["a red bird."], ["a blue bird."], ["a green bird."]]
    splits, ids = np.array(["train"] * 3), np.zeros(3, np.int64)
    return CaptionedImages(np.full((3, 8, 8, 3), 7, np.uint8), captions, ids, splits, ["birds"])


def test_what_a_run_has_opened_outlives_its_removal(stored):
    folder = stored / "data" / "packed" / "mine-8-0123abcd"
    pack(birds(), folder)
    opened = open_packed(folder)
    assert t2i("cache", "--clear", folder.name).exit_code == 0 and not folder.exists()
    assert (opened.images == 7).all()


def test_what_the_library_stores_is_what_is_listed(tmp_path, monkeypatch):
    """The names that `data.load` and `encode_dataset` give are known here; a name of two lines, too."""
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    monkeypatch.setattr(files, "DATA", tmp_path)
    (tmp_path / "two\nlines").mkdir()
    write_folder(tmp_path / "two\nlines")
    dataset = load(tmp_path / "two\nlines", 8)
    encode_dataset(load_encoder("toy-clip"), dataset, tmp_path / "text")
    rows = t2i("cache").output.splitlines()
    assert [row.split()[0] for row in rows] == ["packed", "text"]
    assert rows[0].endswith(dataset.folder.name.replace("\n", r"\n"))
    assert t2i("cache", "--clear").exit_code == 0 and "nothing in the cache" in t2i("cache").output


def write_folder(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a red bird."}\n')


@pytest.mark.parametrize("name", ["../weights", "birds", "link-64-0123abcd", "mine-64-0123abcd", "", "*", "/etc"])
def test_other_names_are_refused(stored, name):
    before = files_in(stored)
    done = t2i("cache", "--clear", name)
    assert isinstance(done.exception, InputError) and "not in the cache" in str(done.exception)
    assert files_in(stored) == before


def test_nothing_is_removed_while_a_run_is_trained(stored):
    before = files_in(stored)
    with writing(stored / "runs" / "first"):
        done = t2i("cache", "--clear")
    assert isinstance(done.exception, InputError) and "first: is being trained" in str(done.exception)
    assert before <= files_in(stored)


def test_an_empty_cache_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "DATA", tmp_path)
    assert "nothing in the cache" in t2i("cache").output


def test_names_that_one_may_use_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "WEIGHTS", tmp_path)
    (tmp_path / "torn.safetensors").write_bytes(b"123")
    done = t2i("list")
    assert done.exit_code == 0
    names = {line.split()[0] for line in done.output.splitlines() if line.startswith("  ")}
    assert {"gancls", "wgan", "dfgan", "clip", "judge", "toy-clip", "contrastive", *recipe_names()} <= names
    assert "  torn  damaged: " in done.output
