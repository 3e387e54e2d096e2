"""Runs from recipe to results, through the library and the command line, on a few toy birds."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from typer.testing import CliRunner

from t2ilib import assembly, data, encoders, experiment, files, measurement, models, sampling
from t2ilib.cli import app
from t2ilib.data.batches import Batches
from t2ilib.data.toy import ATTRIBUTES
from t2ilib.devices import CPU_BATCH
from t2ilib.errors import InputError
from t2ilib.features import Needs
from t2ilib.provenance import told_versions, versions
from t2ilib.training import Run, load_recipe
from t2ilib.training.launch import command, launch
from t2ilib.training.sinks import follow

TINY = {
    "model.ngf": 8,
    "model.ndf": 8,
    "model.batch_size": 8,
    "data.options": {"train": 48, "validation": 8, "test": 24},
    "training.steps": 4,
    "training.log_every": 2,
    "training.sample_every": 2,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 4,
    "evaluation.n": 24,
}
SET = [part for key, value in TINY.items() for part in ("--set", f"{key}={json.dumps(value)}")]


def difference(pictures, others):
    """Relative: four steps leave a generator whose pictures are nearly grey."""
    return float((pictures - others).norm() / pictures.norm())


@pytest.fixture(autouse=True)
def own_data(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
    monkeypatch.setenv("T2I_DATA", str(tmp_path_factory.getbasetemp() / "data"))  # for child processes


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
        records = list(experiment.run_recipe(load_recipe("gancls_toy", **TINY), folder))
    return folder, records


def test_run_folder_holds_all_that_is_promised(finished):
    folder, records = finished
    assert [record["step"] for record in records] == [2, 4]
    assert (folder / "samples" / "step_00000004.png").is_file()
    assert len((folder / "samples" / "captions.txt").read_text().splitlines()) == 8
    noted = json.loads((folder / "environment.json").read_text())
    assert "hardware" in noted and noted["versions"] == versions() and told_versions(noted).startswith("python 3.")
    result = json.loads(next((folder / "results").glob("*.json")).read_text())
    assert result["protocol"]["n"] == 24 and result["protocol"]["step"] == 4
    assert 0 <= records[-1]["metric/attribute_accuracy"] <= 1
    assert result["metrics"]["attribute_accuracy"]["mentioned"] == records[-1]["metric/attribute_accuracy"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model.ngff": 3}, "ngff"),
        ({"data.source": "nowhere"}, "nowhere"),
        ({"encoders.text.name": "contrastive", "encoders.text.options": {"model.widht": 3}}, "widht"),
    ],
)
def test_a_run_that_never_began_leaves_its_folder_to_the_corrected_recipe(wrong, message, tmp_path):
    good = load_recipe("gancls_toy", **TINY)
    with pytest.raises(InputError, match=message):
        list(experiment.run_recipe(good.override(**wrong), tmp_path))
    assert next(experiment.run_recipe(good, tmp_path))["step"] == 2


def test_fit_trains_from_scratch_paints_its_grid_and_probes(tmp_path):
    own = {key: value for key, value in TINY.items() if not key.startswith("data")}
    recipe = load_recipe("gancls_toy", **own | {"training.evaluate_every": 4})
    birds = data.load("toy", 64, train=48, validation=8, test=24).split("train")
    encoder = encoders.load_encoder("toy-clip")
    batches = Batches(birds, encoders.encode_dataset(encoder, birds), 8, "cpu", needs=Needs(mismatched=True))
    probe = measurement.Probe(birds, encoder, count=12)
    grid = encoder.encode(["a red bird."] * 2), torch.randn(2, 100)
    runs = []
    for given in (encoder, {"text": encoder}):
        runs.append(experiment.fit(recipe, batches, given, tmp_path / "run", grid=grid, probe=probe))
    first, second = runs
    assert [record["step"] for record in second.records] == [2, 4]  # the folder was emptied first
    assert set(first.records[-1]) - set(first.records[0]) == {"mentioned", "body", "told apart"}
    assert all(0 <= first.records[-1][name] <= 1 for name in ("mentioned", "told apart"))
    assert list(first.grids) == [2, 4] and first.grids[4].shape == (2, 3, 64, 64)
    assert torch.equal(first.grids[4], second.grids[4]) and not torch.equal(first.grids[2], first.grids[4])
    with torch.no_grad():
        assert torch.allclose(first.system.generate(*grid), first.grids[4], atol=1e-5)


def test_a_probe_counts_how_often_the_discriminator_knows_which_picture_belongs():
    birds, encoder = (
        data.load("toy", 64, train=24, validation=4, test=4).split("train"),
        encoders.load_encoder("toy-clip"),
    )
    probe = measurement.Probe(birds, encoder, count=12)
    system = models.build("gancls", {"text": encoder}, ngf=2, ndf=2).eval()
    own = probe.pairs.images
    system.score = lambda pictures, text: torch.full((12,), float(pictures is own))
    assert probe(0, system)["told apart"] == 1
    system.score = lambda pictures, text: torch.zeros(12)
    assert probe(0, system)["told apart"] == 0.5
    assert 1 / 8 < probe.chance < 1 / 2  # of what these captions mention


def test_stopped_run_continues_to_the_bit(finished, tmp_path):
    recipe = load_recipe("gancls_toy", **TINY)
    list(experiment.run_recipe(recipe.override(**{"training.steps": 2}), tmp_path / "parts"))
    list(experiment.run_recipe(recipe, tmp_path / "parts"))
    whole, parts = (Run.open(folder).restore()[0] for folder in (finished[0], tmp_path / "parts"))
    assert whole.keys() == parts.keys()
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_trained_system_is_found_by_folder_and_by_checkpoint(finished):
    folder, _ = finished
    captions = ["a red bird with black wings.", "a small blue bird."]
    pictures = sampling.load_sampler(folder).sample(captions, seed=3, per_caption=2)
    assert pictures.shape == (4, 3, 64, 64) and pictures.abs().max() <= 1
    again = sampling.load_sampler(Run.open(folder).checkpoints()[-1]).sample(captions[1:], seed=3, per_caption=2)
    assert difference(pictures[2:], again) < 1e-4  # neither neighbours nor the way of loading matter
    other = sampling.load_sampler(folder).sample(captions, seed=4, per_caption=2)
    assert difference(pictures, other) > 0.01


def test_exported_weights_draw_the_same_pictures(finished, tmp_path):
    folder, _ = finished
    path = sampling.export(Run.open(folder), tmp_path / "small.safetensors", "four steps")
    small, whole = sampling.load_sampler(path), sampling.load_sampler(folder)
    captions = ["a green bird with a yellow belly."]
    assert difference(small.sample(captions), whole.sample(captions)) < 0.01
    assert path.stat().st_size < 0.3 * Run.open(folder).checkpoints()[-1].stat().st_size
    assert asdict(small.recipe) == asdict(whole.recipe) and small.step == 4


def test_a_system_begins_with_the_weights_of_a_whole_export(finished, tmp_path):
    run = Run.open(finished[0])
    alone = sampling.export(run, tmp_path / "alone.safetensors", "")
    whole = sampling.export(run, tmp_path / "whole.safetensors", "to begin with", whole=True)
    trained, _, _ = run.restore()
    encoder = encoders.load_encoder("toy-clip")
    system, found = assembly.build(run.recipe, dict.fromkeys(assembly.ROLES, encoder)), {"text": encoder}
    for source in (whole, run.checkpoints()[-1], run.folder):
        for weight in system.parameters():
            torch.nn.init.zeros_(weight)
        sampling.load_start(system, source, found)
        for role in system.trained:
            for name, value in getattr(system, role).state_dict().items():
                assert value.dtype == trained[f"{role}.{name}"].dtype
                assert torch.allclose(value, trained[f"{role}.{name}"], rtol=1e-3, atol=1e-6)
    assert sampling.load_sampler(whole).step == 4
    with pytest.raises(
        InputError, match=r"training\.start: .*alone\.safetensors: holds no discriminator; name a run, or a"
    ):
        sampling.load_start(system, alone, found)
    with pytest.raises(InputError, match=r"another text encoder than the toy-clip-resnet .*set encoders.text to"):
        sampling.load_start(system, whole, {"text": encoders.load_encoder("toy-clip-resnet")})
    other = assembly.build(run.recipe.override(**{"model.ngf": 4}), dict.fromkeys(assembly.ROLES, encoder))
    with pytest.raises(
        InputError, match=r"start: .*whole\.safetensors: .* is of shape .*; set model and data\.size as in"
    ):
        sampling.load_start(other, whole, found)


def test_a_recipe_names_the_weights_that_training_begins_with(finished, tmp_path):
    folder, _ = finished
    rate, first = {"model.lr": 1e-12, "training.seed": 5}, Run.open(folder).restore()[0]
    given = str(folder.resolve())
    list(experiment.run_recipe(load_recipe("gancls_toy", **TINY, **rate, **{"training.start": given}), tmp_path / "on"))
    list(experiment.run_recipe(load_recipe("gancls_toy", **TINY, **rate), tmp_path / "fresh"))
    own = {key: value for key, value in TINY.items() if not key.startswith("data")}
    recipe, encoder = load_recipe("gancls_toy", **own, **rate), encoders.load_encoder("toy-clip")
    birds = data.load("toy", 64, train=48, validation=8, test=24).split("train")
    batches = Batches(birds, encoders.encode_dataset(encoder, birds), 8, "cpu", needs=Needs(mismatched=True))
    experiment.fit(recipe.override(**{"training.start": given}), batches, encoder, tmp_path / "fitted")
    after = {name: Run.open(tmp_path / name).restore()[0] for name in ("on", "fresh", "fitted")}
    weights = [name for name in first if name.startswith(("generator", "discriminator")) and name.endswith("weight")]
    same = {run: all(torch.allclose(found[n], first[n], atol=1e-6) for n in weights) for run, found in after.items()}
    assert same == {"on": True, "fresh": False, "fitted": True}


def test_a_run_continues_from_its_own_checkpoint_not_from_its_start(finished, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(finished[0], source)
    digest = files.sha256(Run.open(source).checkpoints()[-1])
    recipe = load_recipe("gancls_toy", **TINY, **{"training.start": str(source), "model.lr": 0.01})
    list(experiment.run_recipe(recipe, tmp_path / "whole"))
    part = experiment.run_recipe(recipe, tmp_path / "part")
    next(part)
    part.close()
    shutil.rmtree(source)
    list(experiment.run_recipe(recipe, tmp_path / "part"))
    known = [json.loads((tmp_path / name / "environment.json").read_text())["start"] for name in ("whole", "part")]
    assert known[0] == known[1] == {"source": str(source), "step": 4, "sha256": digest}
    one, other = (Run.open(tmp_path / name).restore()[0] for name in ("whole", "part"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="gancls_moon: no run, checkpoint or shipped weights"):
        sampling.load_sampler("gancls_moon")
    (tmp_path / "x.safetensors").write_bytes(b"123")
    with pytest.raises(InputError, match=r"x\.safetensors: not a whole checkpoint"):
        sampling.load_sampler(tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="has no checkpoint yet"):
        sampling.load_sampler(Run.create(tmp_path / "new", load_recipe("gancls_toy")).folder)


OWN_CLIP = {
    "training.steps": 2,
    "model.words_first": 1,
    "training.log_every": 1,
    "training.sample_every": 2,
    "training.checkpoint_every": 1,
    "model.batch_size": 16,
    "model.image_width": 32,
    "model.image_layers": 1,
    "model.text_width": 32,
    "model.text_layers": 1,
}


def contrastive(**options):
    return {"name": "contrastive", "options": {**OWN_CLIP, **options}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.taps": [1, 3]}, r"model.taps = \[1, 3\]: .* which has 2"),
        ({"model.embedding_dim": 7}, r"embedding_dim = 7, but the encoders of this run say 128"),
        ({"encoders.text.options": {"model.image_layers": [1] * 4, "model.stem": []}}, "sees with a ModifiedResNet"),
        (
            {"encoders.clip": {"name": "contrastive", "options": {"model.image_layers": 1}}, "model.similarity": 0},
            r"model.taps = \[1, 2\]: .* which has 1",
        ),
    ],
)
def test_a_clip_that_will_not_fit_the_networks_is_refused_before_it_is_trained(changes, message, tmp_path):
    own = {"encoders.text": contrastive(**{"model.image_layers": 2}), "model.taps": [1, 2], "model.prompts": [1]}
    recipe = load_recipe("galip_toy", **{"data.size": 32, **own})
    assembly.check(recipe)
    with pytest.raises(InputError, match=message):
        next(experiment.run_recipe(recipe.override(**changes), tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_encoder_trained_on_the_runs_own_data_stays_with_the_run(tmp_path):
    recipe = load_recipe("gancls_toy", **TINY, **{"encoders.text": contrastive()})
    folder = tmp_path / "own"
    list(experiment.run_recipe(recipe, folder))
    own = folder / "encoders" / "text"
    assert (own / "model.safetensors").is_file() and Run.open(own).recipe.task == "clip"
    assert Run.open(own).recipe.data == recipe.data.__class__(options=recipe.data.options, shift=3)
    assert sampling.load_sampler(folder).sample(["a red bird."]).shape == (1, 3, 64, 64)
    written = {path: path.stat().st_mtime_ns for path in own.rglob("*.safetensors")}
    list(experiment.run_recipe(recipe, folder))
    assert {path: path.stat().st_mtime_ns for path in own.rglob("*.safetensors")} == written  # trained once
    bad = recipe.override(**{"encoders.text.options": {"training.stepz": 3}})
    with pytest.raises(InputError, match="stepz"):
        list(experiment.run_recipe(bad, tmp_path / "bad"))


def test_a_runs_own_encoder_is_trained_under_a_bar_and_kept_without_any_evaluation(tmp_path, capsys):
    off = {"training.evaluate_every": 0}
    recipe = load_recipe("gancls_toy", **TINY | off, **{"encoders.text": contrastive(**off)})
    records = list(experiment.run_recipe(recipe, tmp_path / "own"))
    assert "text encoder: 100%" in capsys.readouterr().err.replace("\r", "\n")
    assert not any(name.startswith("metric/") for name in records[-1])
    assert not (tmp_path / "own" / "results").exists()
    assert (tmp_path / "own" / "encoders" / "text" / "model.safetensors").is_file()


def test_encoder_whose_training_was_stopped_is_trained_to_its_end(tmp_path, monkeypatch):
    recipe = load_recipe("gancls_toy", **TINY, **{"encoders.text": contrastive()})
    whole = tmp_path / "whole"
    list(experiment.run_recipe(recipe, whole))
    own = assembly.encoder_recipe(recipe, "text")
    stopped = experiment.run_recipe(own, tmp_path / "parts" / "encoders" / "text")
    assert next(stopped)["step"] == 1
    stopped.close()
    list(experiment.run_recipe(recipe, tmp_path / "parts"))
    encoders_of = [folder / "encoders" / "text" / "model.safetensors" for folder in (whole, tmp_path / "parts")]
    assert encoders_of[0].read_bytes() == encoders_of[1].read_bytes()


def test_missing_encoder_of_a_run_is_named(finished, tmp_path):
    recipe = load_recipe("gancls_toy", **TINY, **{"encoders.text": contrastive()})
    with pytest.raises(InputError, match=r"encoders\.text: contrastive lies in the run folder"):
        assembly.load_encoder(recipe, "text", None)
    with pytest.raises(InputError, match="no such encoder"):
        assembly.load_encoder(recipe, "text", tmp_path)


GUIDED = {
    **{key: value for key, value in TINY.items() if not key.startswith("model.")},
    "model": {"nf": 2, "batch_size": 8, "ema": 0.9},
    "encoders.text": contrastive(**{"model.exchanged": 1}),
    "clip.weight": 4.0,
    "clip.start": 1,
    "clip.ramp": 2,
    "clip.crops": 1,
    "encoders.judge": {"name": "toy-clip"},
    "evaluation.truncation": 0.88,
}


def guided(**changes):
    return load_recipe("dfgan_toy", **{**GUIDED, **changes})


@pytest.fixture(scope="module")
def guided_run(tmp_path_factory):
    """DF-GAN at 64 pixels, where a shortcut of its discriminator is never used, with the CLIP loss."""
    folder = tmp_path_factory.mktemp("guided") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
        records = list(experiment.run_recipe(guided(), folder))
    return folder, records


def test_guided_run_is_trained_by_one_clip_and_scored_by_another(guided_run):
    folder, records = guided_run
    terms = {key for record in records for key in record if key.startswith(("generator/", "discriminator/"))}
    assert terms == {f"discriminator/{name}" for name in ("real", "fake", "mismatched", "penalty")} | {
        "generator/adversarial",
        "generator/clip",
    }
    assert 0 < records[0]["generator/clip"] < records[1]["generator/clip"]  # the weight rises from step 1 to 3
    protocol = json.loads(next((folder / "results").glob("*.json")).read_text())["protocol"]
    assert protocol["text_encoder"] == encoders.load_encoder(str(folder / "encoders" / "text")).fingerprint
    assert protocol["judge_encoder"] == encoders.load_encoder("toy-clip").fingerprint != protocol["text_encoder"]
    assert protocol["truncation"] == 0.88


def test_guided_run_continues_to_the_bit(guided_run, tmp_path):
    parts = tmp_path / "parts"
    list(experiment.run_recipe(guided(**{"training.steps": 2}), parts))
    weights = [folder / "encoders" / "text" / "model.safetensors" for folder in (parts, guided_run[0])]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    rest = list(experiment.run_recipe(guided(), parts))
    assert [record["step"] for record in rest] == [4]
    whole, resumed = (Run.open(folder).restore()[0] for folder in (guided_run[0], parts))
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert rest[-1]["generator/clip"] == guided_run[1][-1]["generator/clip"]


def test_guided_sampler_is_measured_as_its_recipe_says(guided_run):
    folder, _ = guided_run
    sampler = sampling.load_sampler(folder)
    result = measurement.evaluate_sampler(sampler, n=8)
    assert result["protocol"]["truncation"] == 0.88 and result["protocol"]["system"] == "dfgan"
    assert result["protocol"]["judge_encoder"] == encoders.load_encoder("toy-clip").fingerprint
    other = measurement.evaluate_sampler(sampler, n=8, truncation=0.5, judge_encoder=sampler.encoder)
    assert other["protocol"]["truncation"] == 0.5
    assert other["protocol"]["judge_encoder"] == other["protocol"]["text_encoder"] == sampler.encoder.fingerprint
    pictures = {truncation: sampler.sample(["a red bird."], truncation=truncation) for truncation in (None, 0.5)}
    assert difference(pictures[None], pictures[0.5]) > 1e-3
    with pytest.raises(InputError, match="truncation = -1"):
        sampler.sample(["a red bird."], truncation=-1)


def test_exported_guided_weights_need_no_clip(guided_run, tmp_path):
    path = sampling.export(Run.open(guided_run[0]), tmp_path / "checkpoints" / "small.safetensors", "four steps")
    (tmp_path / "encoders").symlink_to(guided_run[0] / "encoders")
    small, whole = sampling.load_sampler(path), sampling.load_sampler(guided_run[0])
    captions = ["a green bird with a yellow belly."]
    assert small.system.guidance is None and small.recipe == whole.recipe
    assert difference(small.sample(captions), whole.sample(captions)) < 0.01


@pytest.fixture
def assembled(guided_run, tmp_path):
    """Assemble a recipe in a folder that has the text encoder already."""

    def assemble(**changes):
        recipe = guided(**changes)
        folder = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        shutil.copytree(guided_run[0] / "encoders", folder / "encoders")
        return assembly.assemble(recipe, folder)

    return assemble


def test_settings_of_the_clip_loss_reach_it(assembled):
    guidance = assembled(**{"clip.released": True}).task.guidance
    given = {name: getattr(guidance, name) for name in ("weight", "start", "ramp", "crops", "released")}
    assert given == {"weight": 4.0, "start": 1, "ramp": 2, "crops": 1, "released": True}
    assert assembled(**{"clip.weight": 0.0}).task.guidance is None
    plain = assembled()
    assert plain.task.guidance.encoder is plain.encoders["text"]  # the text's, none named
    other = assembled(**{"encoders.clip": {"name": "toy-clip"}})
    assert other.task.guidance.encoder.fingerprint == encoders.load_encoder("toy-clip").fingerprint
    assert other.encoders["text"].fingerprint != other.task.guidance.encoder.fingerprint
    for key in ("weight", "start", "ramp", "crops"):
        with pytest.raises(InputError, match=rf"clip\.{key} = -1.* must be at least 0"):
            assembled(**{f"clip.{key}": -1})


def test_judge_of_a_recipe_is_the_texts_encoder_where_none_is_named(assembled):
    other = assembled()
    assert other.encoders["judge"].fingerprint == encoders.load_encoder("toy-clip").fingerprint
    assert other.encoders["judge"].fingerprint != other.encoders["text"].fingerprint
    recipe = guided()
    alone = replace(recipe, encoders={"text": recipe.encoders["text"]})
    found = assembly.load_encoders(alone, other.run.folder)
    assert found["judge"] is found["text"] is found["clip"]


@pytest.mark.parametrize(("teacher", "length"), [("toy-clip", 128), ("contrastive", 96)])
def test_teacher_and_judge_of_their_own(teacher, length, tmp_path, monkeypatch):
    """The loss's CLIP may be another than the text's: it reads the same captions with its own text tower."""
    given = []
    guide = assembly.ClipGuidance.__call__

    def spying(self, fakes, batch):
        given.append((batch.text.sentence.shape[1], batch.target.shape[1], batch.step))
        return guide(self, fakes, batch)

    monkeypatch.setattr(assembly.ClipGuidance, "__call__", spying)
    own = teacher == "contrastive"
    resnet = {"model.image_width": 8, "model.image_layers": [1, 1, 1, 1], "model.stem": []}
    changes = {
        "training.steps": 2,
        "encoders.text": contrastive(**{"model.embed_dim": 64}),
        "encoders.clip": contrastive(**{"model.embed_dim": 96}) if own else {"name": teacher},
        "encoders.judge": contrastive(**resnet) if own else {"name": teacher},
    }
    list(experiment.run_recipe(guided(**changes), tmp_path / "run"))
    assert given == [(64, length, 0), (64, length, 1)]
    protocol = json.loads(next((tmp_path / "run" / "results").glob("*.json")).read_text())["protocol"]
    judge = str(tmp_path / "run" / "encoders" / "judge") if own else teacher
    assert protocol["judge_encoder"] == encoders.load_encoder(judge).fingerprint
    assert (tmp_path / "run" / "encoders" / "clip").exists() is own


def test_crop_decides_what_is_drawn_and_what_it_is_compared_with(assembled):
    whole, cut = assembled(), assembled(**{"data.crop": 32})
    assert whole.task.config.image_size == whole.reference.size == 64
    assert cut.task.config.image_size == cut.reference.size == 32
    assert cut.training.size == 64  # cropped at random, batch by batch
    assert (cut.reference.images == whole.reference.images[:, 16:48, 16:48]).all()
    assert cut.reference.captions == whole.reference.captions
    with pytest.raises(InputError, match=r"data\.crop = 128.* crops must fit"):
        assembled(**{"data.crop": 128})


def test_pictures_are_shifted_as_the_recipe_says(assembled):
    plain, shifted = (assembly.make_batches(assembled(**{"data.shift": shift})).batch(0).images for shift in (0, 5))
    assert not torch.equal(plain, shifted)


def test_cropped_run_trains_and_is_measured(guided_run, tmp_path):
    shutil.copytree(guided_run[0] / "encoders", tmp_path / "run" / "encoders")
    recipe = guided(**{"data.crop": 32, "training.steps": 2, "clip.weight": 0.0})
    (record,) = experiment.run_recipe(recipe, tmp_path / "run")
    assert "generator/clip" not in record and "metric/attribute_accuracy" in record
    protocol = json.loads(next((tmp_path / "run" / "results").glob("*.json")).read_text())["protocol"]
    assert protocol["real_size"] == 32
    sampler = sampling.load_sampler(tmp_path / "run")
    assert sampler.sample(["a red bird."]).shape == (1, 3, 32, 32)
    assert measurement.evaluate_sampler(sampler, n=8)["protocol"]["real_size"] == 32


def test_command_line_from_training_to_results(tmp_path):
    runner, folder = CliRunner(), str(tmp_path / "run")
    done = runner.invoke(app, ["train", "gancls", "--folder", folder, *SET], catch_exceptions=False)
    assert done.exit_code == 0 and "4 steps, 32 pictures" in done.output
    again = runner.invoke(app, ["train", "gancls", "--folder", folder, *SET], catch_exceptions=False)
    assert "all 4 steps are done" in again.output
    (tmp_path / "captions.txt").write_text("a red bird.\n\na blue bird.\n")
    png = str(tmp_path / "out.png")
    arguments = ["sample", folder, "--file", str(tmp_path / "captions.txt"), "--per-caption", "3", "--out", png]
    assert "2 rows of 3" in runner.invoke(app, arguments, catch_exceptions=False).output
    out = runner.invoke(app, ["evaluate", folder, "--n", "24", "--out", str(tmp_path / "r")], catch_exceptions=False)
    shown = yaml.safe_load(out.output.partition("wrote ")[0])
    written = json.loads(next((tmp_path / "r").glob("*.json")).read_text())
    assert shown["attribute_accuracy"] == written["metrics"]["attribute_accuracy"]
    told = written["protocol"]
    assert f"clip_score: {written['metrics']['clip_score']}  # 100 x cosine by toy-clip-resnet" in out.output
    assert f"# commit {told['commit']}, {told_versions(told)}, {told['seconds']} s\n" in out.output
    weights = str(tmp_path / "w.safetensors")
    assert runner.invoke(app, ["export", folder, "--to", weights], catch_exceptions=False).exit_code == 0
    assert runner.invoke(app, ["sample", weights, "a red bird.", "--out", png], catch_exceptions=False).exit_code == 0


def test_samplers_go_to_the_accelerator_or_where_they_are_told(finished, monkeypatch):
    """There is none here: `meta` stands for one, on which everything has a shape and nothing a value."""
    folder, _ = finished
    monkeypatch.setattr("t2ilib.sampler.this_process", lambda: SimpleNamespace(device=torch.device("meta")))
    sampler = sampling.load_sampler(folder)
    assert sampler.device.type == "meta" and next(sampler.system.generator.parameters()).device.type == "meta"
    assert sampling.load_sampler(folder, "cpu").device.type == "cpu"


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_commands_take_a_device(finished, monkeypatch, command):
    given = []

    def spying(source, device=None):
        given.append((source, device))
        raise InputError("enough")

    monkeypatch.setattr(sampling, "load_sampler", spying)
    captions = ["a red bird."] if command == "sample" else []
    for options, device in (([], None), (["--device", "cuda:1"], "cuda:1")):
        result = CliRunner().invoke(app, [command, "gancls_toy", *captions, *options])
        assert isinstance(result.exception, InputError) and given[-1] == ("gancls_toy", device)


def test_many_captions_are_painted_in_batches(finished):
    """What a picture looks like does not depend on how many are asked for, and no batch is larger than the device's."""
    sampler = sampling.load_sampler(finished[0])
    sizes, generate = [], sampler.system.generate
    sampler.system.generate = lambda text, noise: sizes.append(len(noise)) or generate(text, noise)
    captions = [f"a {colour} bird." for colour in ("red", "blue", "green", "white", "black")]
    pictures = sampler.sample(captions, seed=2, per_caption=8)
    assert max(sizes) <= CPU_BATCH < len(pictures) == sum(sizes) == 40
    assert difference(pictures[8:16], sampler.sample(captions[1:2], seed=2, per_caption=8)) < 1e-4


def test_a_clip_is_trained_exported_and_read(tmp_path):
    runner, folder = CliRunner(), tmp_path / "clip"
    small = {key: value for key, value in {**TINY, **OWN_CLIP}.items() if key not in ("model.ngf", "model.ndf")}
    small["training.steps"] = 2
    changes = [part for key, value in small.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    done = runner.invoke(app, ["train", "clip", "--folder", str(folder), *changes], catch_exceptions=False)
    assert done.exit_code == 0 and "2 steps, 32 pictures" in done.output
    out = str(tmp_path / "exported")
    assert runner.invoke(app, ["export", str(folder), "--to", out], catch_exceptions=False).exit_code == 0
    pair = [encoders.load_encoder(str(where)) for where in (folder, out)]
    assert pair[0].fingerprint == pair[1].fingerprint
    measured = [name.removeprefix("metric/") for name in Run.open(folder).records()[-1] if name.startswith("metric/")]
    assert measured == ["full", "random", "average", *(f"exchanged/{name}" for name in ATTRIBUTES), "r_precision"]
    with pytest.raises(InputError, match="clip: paints nothing"):
        sampling.load_sampler(folder)


def test_export_of_an_unfinished_encoder_is_refused(tmp_path):
    recipe = load_recipe("clip_toy", **{"training.steps": 1, "model.words_first": 0, "model.parts": False})
    run = Run.create(tmp_path / "new", recipe)
    run.save(1, {"model.x": torch.zeros(1)}, {"seconds": 1.0, "skipped": 0, "drawn": 1})
    with pytest.raises(InputError, match="holds no finished network"):
        sampling.export(run, tmp_path / "out", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gancls", "--set", "training.stepz=3"], "unknown key stepz"),
        (["train", "gancls", "--set", "model.image_size=32", "--folder", "runs/none"], "model.image_size = 32"),
        (["train", "stylegan"], "stylegan: no such system; choose among gancls"),
        (["figures", "nothing"], "nothing: no such figure"),
        (["course", "--scale", "huge"], "scale huge: choose among"),
        (["train", "dfgan", "--recipe", "gancls_toy"], "is a recipe of gancls"),
        (["train", "gancls", "--set", "steps"], "write it as key=value"),
        (["train", "gancls", "--data", "nowhere.zip", "--folder", "runs/none"], "nowhere.zip: no such source"),
        (["sample", "gancls_toy"], "no caption given"),
        (["data", "nowhere"], "nowhere: no such source"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch, capsys):
    (script,) = entry_points(group="console_scripts", name="t2i")  # what the installed command `t2i` calls
    monkeypatch.setattr(sys, "argv", ["t2i", *arguments])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        script.load()()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_the_installed_command_ends_the_same_way(tmp_path):
    command = Path(sys.executable).parent / "t2i"
    done = subprocess.run([command, "data", "nowhere"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: nowhere") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("gancls", "model.lr=nan", "model: lr: 'nan' is not a finite number"),
        ("gancls", "model.lr=.inf", "model: lr: inf is not a finite number"),
        ("gancls", "model.lr=-1", "lr = -1.0: must be above 0"),
        ("dfgan", "model.discriminator_lr=0", "discriminator_lr = 0.0: must be above 0"),
        ("wgan", "model.betas=[0.5, 1]", "betas = (0.5, 1.0): must be at least 0 and below 1 each"),
        ("wgan", "model.ema=1", "ema = 1.0: must be at least 0 and below 1"),
        ("judge", "model.batch_size=1", "batch_size = 1: must be at least 2"),
        ("clip", "model.weight_decay=-1", "weight_decay = -1.0: must be at least 0"),
        ("clip", "clip.weight=1", "clip.weight: clip paints nothing"),
        ("gancls", "training.seed=-1", "training.seed = -1: must be at least 0"),
        ("gancls", "training.seed=4294967296", "below 4,294,967,296"),
        ("gancls", "training.gradient_clip=-1", "training.gradient_clip = -1.0: must be at least 0"),
        ("gancls", "evaluation.truncation=.inf", "evaluation.truncation: inf is not a finite number"),
        ("gancls", "model.lr=[", "--set model.lr: not YAML that can be read"),
        (
            "gancls",
            "encoders.text={name: contrastive, options: {recipe: judge_toy}}",
            "encoders.text.options: a recipe of j",
        ),
        ("gancls", "encoders.text={name: contrastive, options: {data.size: 32}}", "data.size is the run's own"),
        ("gancls", "encoders.text={name: contrastive, options: {nosuch: 1}}", "encoders.text.options: nosuch: unknown"),
    ],
)
def test_bad_values_are_named_before_anything_is_written(task, change, message, tmp_path):
    done = CliRunner().invoke(app, ["train", task, "--folder", str(tmp_path / "run"), "--set", change])
    assert isinstance(done.exception, InputError) and message in str(done.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "options"),
    [
        ([], {"held_out": 20}),
        (["--data", "toy"], {}),
        (["--data", "toy", "--set", "data.options.train=9"], {"train": 9}),
        (["--set", "data.options.held_out=7"], {"held_out": 7}),
    ],
)
def test_other_data_leave_the_options_of_the_recipe_s_own_behind(more, options, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr("t2ilib.commands.training._train", lambda recipe, *_: given.append(recipe))
    command = ["train", "dfgan", "--recipe", "dfgan_cub100", "--folder", str(tmp_path), *more]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert given[0].data.options == options


def test_counts_of_nothing_are_refused_not_passed_over(tmp_path):
    for more, message in (["--steps", "0"], "steps = 0: must"), (["--processes", "0"], "processes: 0 must"):
        done = CliRunner().invoke(app, ["train", "gancls", "--folder", str(tmp_path / "run"), *more])
        assert isinstance(done.exception, InputError) and message in str(done.exception)


def test_a_device_that_is_not_there_is_named(finished):
    for name in ("nosuch", "cuda:77", "3x"):
        with pytest.raises(InputError, match=f"device {name}: not usable here"):
            sampling.load_sampler(finished[0], name)


def test_fit_empties_nothing_but_runs_and_looks_at_the_recipe_first(tmp_path):
    (tmp_path / "thesis.txt").write_text("four years")
    recipe, encoder = load_recipe("gancls_toy", **TINY), encoders.load_encoder("toy-clip")
    with pytest.raises(InputError, match="so they are of no run"):
        experiment.fit(recipe, None, encoder, tmp_path)
    (tmp_path / "config.yaml").write_text(recipe.to_yaml())
    with pytest.raises(InputError, match="ngff"):
        experiment.fit(recipe.override(**{"model.ngff": 3}), None, encoder, tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_exported_weights_are_not_drawn_from_with_another_encoder(finished, tmp_path, monkeypatch):
    path = sampling.export(Run.open(finished[0]), tmp_path / "small.safetensors", "four steps")
    assert sampling.load_sampler(path).step == 4
    load = assembly.load_encoder
    other = encoders.load_encoder("toy-clip-resnet")
    monkeypatch.setattr(assembly, "load_encoder", lambda *arguments: other)
    with pytest.raises(
        InputError, match=r"small.safetensors: was trained with another text encoder than the toy-clip-r"
    ):
        sampling.load_sampler(path)
    monkeypatch.setattr(assembly, "load_encoder", load)
    assert sampling.load_sampler(path).step == 4


def test_export_replaces_nothing_of_a_run(finished, tmp_path):
    run, other = Run.open(finished[0]), tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text("task: clip")
    for target in (run.checkpoints()[-1], run.folder / "new.safetensors", other / "deep" / "weights.safetensors"):
        before = target.read_bytes() if target.is_file() else None
        with pytest.raises(InputError, match="lies in a run folder"):
            sampling.export(run, target, "")
        assert (target.read_bytes() if target.is_file() else None) == before
    with pytest.raises(InputError, match=r"give a \.safetensors file for a system"):
        sampling.export(run, tmp_path / "weights.pt", "")
    (other / "config.yaml").write_text("theme: dark")
    assert sampling.export(run, other / "deep" / "weights.safetensors", "").is_file()
    (other / "checkpoints").mkdir()
    (other / "checkpoints" / "step_00000004.safetensors").write_bytes(b"of a run whose recipe is damaged")
    with pytest.raises(InputError, match="lies in a run folder"):
        sampling.export(run, other / "checkpoints" / "step_00000004.safetensors", "")


def test_a_config_changed_by_hand_does_not_continue_another_recipes_checkpoint(finished, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(finished[0], folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("task: gancls", "task: wgan"))
    done = CliRunner().invoke(app, ["resume", str(folder), "--steps", "6"])
    assert isinstance(done.exception, InputError)
    assert "config.yaml: says something else than" in str(done.exception) or "unknown key" in str(done.exception)
    config.write_text(config.read_text().replace("task: wgan", "task: gancls").replace("seed: 0", "seed: 1"))
    done = CliRunner().invoke(app, ["resume", str(folder), "--steps", "6"])
    assert "config.yaml: says something else than" in str(done.exception)
    assert [record["step"] for record in Run.open(folder).records()] == [2, 4]


def test_help_of_every_command_has_an_example_or_a_sentence():
    names = re.findall(r"(?m)^│ (\w+) ", CliRunner().invoke(app, ["--help"]).output)
    assert {"data", "train", "sample", "evaluate", "resume", "export", "course", "figures"} <= set(names)
    for name in names:
        shown = CliRunner().invoke(app, [name, "--help"])
        assert shown.exit_code == 0 and "Usage" in shown.output
        if name in ("data", "train", "sample", "evaluate"):
            assert "Example: t2i" in shown.output


def test_child_process_trains_two_ranks_and_is_followed(tmp_path):
    changes = TINY | {"training.steps": 2, "training.log_every": 1}
    run, child = launch(load_recipe("gancls_toy", **changes), tmp_path / "two", processes=2)
    records = list(follow(run, lambda: child.poll() is None, every=0.2))
    assert child.wait() == 0, (run.folder / "log.txt").read_text()[-2000:]
    assert [record["step"] for record in records] == [1, 2]
    assert records[-1]["images"] == 2 * 2 * 8
    assert len(run.checkpoints()) == 1


def test_launch_refuses_no_process(tmp_path):
    with pytest.raises(InputError, match="at least 1"):
        launch(load_recipe("gancls_toy"), tmp_path, processes=0)
    assert command(Run(tmp_path), 1)[1:4] == ["-m", "t2ilib.cli", "resume"]
