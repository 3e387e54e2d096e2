"""Going on from any checkpoint in a new folder, and grids per caption, through the command line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from t2ilib import encoders, experiment, files
from t2ilib.cli import app
from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.experiment import begun_with
from t2ilib.sampling import export, load_sampler
from t2ilib.training import Run, load_recipe
from t2ilib.training.lock import owner

TINY = {
    "model.nf": 2,
    "model.batch_size": 4,
    "data.size": 32,
    "data.options": {"train": 24, "validation": 4, "test": 8},
    "clip.weight": 1.0,
    "training.steps": 4,
    "training.log_every": 1,
    "training.sample_every": 4,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 4,
    "evaluation.n": 8,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("branch") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
        list(experiment.run_recipe(load_recipe("dfgan_toy", **TINY), folder))
    return folder


@pytest.fixture(autouse=True)
def own_data(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")


def test_branch_from_an_old_checkpoint_repeats_the_run_to_the_bit(finished, tmp_path):
    old = finished / "checkpoints" / "step_00000002.safetensors"
    branch = Run.branch(old, tmp_path / "branch")
    assert branch.recipe == Run(finished).recipe
    records = list(experiment.run_recipe(branch.recipe, branch.folder))
    assert [record["step"] for record in records] == [3, 4]
    whole, repeated = (Run(folder).restore()[0] for folder in (finished, branch.folder))
    assert [name for name in whole if not torch.equal(whole[name], repeated[name])] == []


def test_branch_from_a_run_takes_its_newest_checkpoint_and_trained_encoders(finished, tmp_path):
    (finished / "encoders" / "text").mkdir(parents=True, exist_ok=True)
    (finished / "encoders" / "text" / "config.json").write_text("{}")
    branch = Run.branch(finished, tmp_path / "branch")
    assert [path.name for path in branch.checkpoints()] == ["step_00000004.safetensors"]
    assert (branch.folder / "encoders" / "text" / "config.json").is_file()


def test_a_branch_knows_which_weights_the_run_began_with(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    began = {"source": "birds", "step": 3, "sha256": "0" * 64}
    files.write_json(tmp_path / "run" / "environment.json", {"hardware": "another", "start": began})
    recipe = Run(finished).recipe.override(**{"training.start": "birds"})
    branch = Run.branch(tmp_path / "run", tmp_path / "branch")
    assert files.read_json(branch.folder / "environment.json", "") == {"start": began}
    assert begun_with(recipe, branch.folder) == began


@pytest.mark.parametrize("note", ["[]", "3", "null", '{"start": 5}', '{"start": []}', "{", ""])
def test_a_damaged_note_of_what_a_run_began_with_is_named(finished, tmp_path, note):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "environment.json").write_text(note)
    began = Run(finished).recipe.override(**{"training.start": "birds"})
    for read in (lambda: Run.branch(tmp_path / "run", tmp_path / "new"), lambda: begun_with(began, tmp_path / "run")):
        with pytest.raises(InputError, match=r"environment\.json: damaged .*; remove it, the run goes on without"):
            read()
    assert not (tmp_path / "new").exists()


def test_branch_refuses_what_it_cannot_continue(finished, tmp_path):
    with pytest.raises(InputError, match="holds a run already"):
        Run.branch(finished, finished)
    with pytest.raises(InputError, match="no such checkpoint"):
        Run.branch(tmp_path / "none.safetensors", tmp_path / "new")
    alone = export(Run(finished), tmp_path / "alone.safetensors", "a generator")
    with pytest.raises(InputError, match="without optimisers"):
        Run.branch(alone, tmp_path / "new")
    with pytest.raises(InputError, match=r"4 steps are done, training\.steps = 3 are fewer"):
        Run.branch(finished, tmp_path / "new", steps=3)
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "new").exists()


def test_an_encoder_that_was_exchanged_later_is_noticed(finished, tmp_path, monkeypatch):
    """As runs/X/encoders/text with other weights in it: the same name, another fingerprint."""
    other = load_encoder("toy-clip")
    other.model.ln_final.weight.data += 1
    shutil.copytree(finished, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    more = Run(finished).recipe.override(**{"training.steps": 6})
    monkeypatch.setattr(encoders, "load_encoder", lambda name, **options: other)
    with pytest.raises(InputError, match=r"step_00000004\.safetensors: was trained with another text encoder"):
        list(experiment.run_recipe(more, tmp_path / "run"))
    with pytest.raises(InputError, match="was trained with another text encoder than the toy-clip that is here now"):
        load_sampler(tmp_path / "run")
    with pytest.raises(InputError, match="was trained with another text encoder"):
        export(Run(tmp_path / "run"), tmp_path / "alone.safetensors", "")
    assert [name for name in before if "checkpoints" in str(name) and name.read_bytes() != before[name]] == []
    monkeypatch.undo()
    monkeypatch.setattr(files, "DATA", tmp_path / "data")
    assert [record["step"] for record in experiment.run_recipe(more, tmp_path / "run")] == [5, 6]


def test_a_run_on_pictures_whose_captions_nobody_can_read_is_refused(tmp_path, caplog):
    """Through the command line; allowed by the recipe, or begun already, it goes on and says so."""
    photos = tmp_path / "photos"
    photos.mkdir()
    rows = []
    for number in range(24):
        Image.new("RGB", (40, 40), (9 * number, 0, 0)).save(photos / f"{number}.png")
        split = "train" if number < 16 else "test"
        rows.append({"file_name": f"{number}.png", "text": f"this dog sleeps on sofa {number}", "split": split})
    (photos / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {key: value for key, value in TINY.items() if key != "data.options"} | {"training.steps": 2}
    options = [part for key, value in sizes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    arguments = ["train", "dfgan", "--data", str(photos), "--folder", str(tmp_path / "run"), *options]
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, InputError), refused.output
    assert "encoders.text: toy-clip cannot read" in str(refused.exception) and "contrastive" in str(refused.exception)
    assert not Run(tmp_path / "run").checkpoints()
    done = CliRunner().invoke(app, [*arguments, "--set", "encoders.text.unknown=1"])
    assert done.exit_code == 0, done.output
    assert caplog.text.count("cannot read these captions well") == 2  # the text's and the judge's


def test_command_line_resumes_from_a_checkpoint_with_more_steps(finished, tmp_path):
    path = str(finished / "checkpoints" / "step_00000004.safetensors")
    refused = CliRunner().invoke(app, ["resume", path])
    assert isinstance(refused.exception, InputError) and "--folder" in str(refused.exception)
    done = CliRunner().invoke(app, ["resume", path, "--folder", str(tmp_path / "more"), "--steps", "5"])
    assert done.exit_code == 0, done.output
    assert [record["step"] for record in Run(tmp_path / "more").records()] == [4, 5]


def test_command_line_draws_a_grid_per_caption(finished, tmp_path):
    (tmp_path / "captions.txt").write_text("a red bird\n\na small blue bird, on a rock\n")
    options = ["--file", str(tmp_path / "captions.txt"), "--per-caption", "4", "--truncation", "0.5"]
    done = CliRunner().invoke(app, ["sample", str(finished), *options, "--out", str(tmp_path / "grids")])
    assert done.exit_code == 0, done.output
    pictures = sorted((tmp_path / "grids").iterdir())
    assert [path.name for path in pictures] == ["001_a-red-bird.png", "002_a-small-blue-bird-on-a-rock.png"]
    assert Image.open(pictures[0]).size == (66, 66)  # two by two pictures of 32 pixels, two apart
    refused = CliRunner().invoke(app, ["sample", str(finished), "a bird", "--out", "grid.jpg"])
    assert isinstance(refused.exception, InputError) and ".png" in str(refused.exception)


def test_evaluation_can_be_scored_by_another_clip(finished, tmp_path):
    options = ["--n", "4", "--judge", "toy-clip", "--truncation", "0.88", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, ["evaluate", str(finished), *options])
    assert done.exit_code == 0, done.output
    protocols = [json.loads(path.read_text())["protocol"] for path in tmp_path.glob("*.json")]
    own = json.loads(next((finished / "results").glob("*.json")).read_text())["protocol"]
    assert protocols[0]["truncation"] == 0.88 and own["truncation"] is None
    assert protocols[0]["judge_encoder"] == protocols[0]["text_encoder"] != own["judge_encoder"]


def test_a_checkpoint_alone_is_exported_as_its_run_is(finished, tmp_path):
    path = Run(finished).checkpoints()[-1]
    done = CliRunner().invoke(app, ["export", str(path), "--to", str(tmp_path / "small.safetensors")])
    assert done.exit_code == 0, done.exception
    whole = export(Run(finished), tmp_path / "whole.safetensors", "")
    assert (tmp_path / "small.safetensors").read_bytes() == whole.read_bytes()
    older = Run(finished).checkpoints()[0]
    assert older != path and export(Run.open(older), tmp_path / "older.safetensors", "").is_file()
    assert load_sampler(tmp_path / "older.safetensors").step == 2


def test_a_sampler_takes_the_checkpoint_before_a_damaged_one(finished, tmp_path, caplog):
    shutil.copytree(finished, tmp_path / "run")
    newest = Run(tmp_path / "run").checkpoints()[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    assert load_sampler(tmp_path / "run").step == 2
    (said,) = caplog.messages
    assert said.startswith(f"warning: {newest}: not a whole checkpoint")


def test_no_evaluation_at_all_where_none_is_asked_for(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "measure", lambda *_: pytest.fail("measured"))
    recipe = Run(finished).recipe.override(**{"training.steps": 5, "training.evaluate_every": 0})
    branch = Run.branch(finished / "checkpoints" / "step_00000004.safetensors", tmp_path / "more")
    (last,) = experiment.run_recipe(recipe, branch.folder)
    assert last["step"] == 5 and not any(name.startswith("metric/") for name in last)
    assert not (branch.folder / "results").exists()


def test_two_runs_do_not_write_one_folder_at_once(finished, tmp_path):
    recipe = Run(finished).recipe
    running = experiment.run_recipe(recipe, tmp_path / "run")
    assert next(running)["step"] == 1
    script = "import sys; from pathlib import Path; from t2ilib.training.lock import held; "
    script += "sys.exit(held(Path(sys.argv[1])))"
    other = [sys.executable, "-c", script, str(tmp_path / "run")]
    assert subprocess.run(other, check=False).returncode == 1
    with pytest.raises(InputError, match="is being trained already"):
        next(experiment.run_recipe(recipe, tmp_path / "run"))
    running.close()
    assert subprocess.run(other, check=False).returncode == 0


def test_fit_holds_its_folder_and_empties_all_but_the_lock(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    held = []

    def train(*_, **__):
        held.append((owner(tmp_path / "run").number, sorted(path.name for path in (tmp_path / "run").iterdir())))
        return []

    monkeypatch.setattr(experiment, "train", train)
    recipe, encoder = Run(finished).recipe.override(**{"clip.weight": 0.0}), load_encoder("toy-clip")
    experiment.fit(recipe, None, encoder, tmp_path / "run")
    assert held == [(os.getpid(), ["config.yaml", "process"])]
    (tmp_path / "run" / "config.yaml").unlink()
    experiment.fit(recipe, None, encoder, tmp_path / "run")  # a lock alone is nobody's work
