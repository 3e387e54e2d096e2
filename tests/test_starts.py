"""Weights that training cannot begin with are named before anything is written, read or trained."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from t2ilib import assembly, encoders, experiment, sampling
from t2ilib.cli import app
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS, sha256
from t2ilib.training import Run, load_recipe
from t2ilib.training.checkpoints import read_checkpoint, write_checkpoint
from t2ilib.training.recipe import plain

SMALL = {"model.ngf": 2, "model.ndf": 2, "model.batch_size": 2, "training.steps": 2}
OWN = {"name": "contrastive", "options": {"training.steps": 2, "model.text_width": 32, "model.words_first": 1}}
MANY = "a" * 5000


def gancls(**changes):
    return load_recipe("gancls_toy", **SMALL | changes)


def weights_of(recipe, path, fingerprints=None, drop=""):
    """Write a checkpoint of a recipe's fresh networks, without training, and return its path."""
    encoder, tensors = (
        encoders.load_encoder("toy-clip"),
        {"model.weight": torch.zeros(2), "judge.weight": torch.zeros(2)},
    )
    if assembly.is_system(recipe):
        state = assembly.build(recipe, dict.fromkeys(assembly.ROLES, encoder)).state_dict()
        tensors = {name: value for name, value in state.items() if not drop or not name.startswith(drop)}
    told = {"text": encoder.fingerprint} if fingerprints is None else fingerprints
    write_checkpoint(path, tensors, {"step": 0, "recipe": plain(recipe), "encoders": told})
    return str(path)


def missing(tmp_path):
    return str(tmp_path / "no.safetensors")


def a_folder(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    return str(tmp_path / "x.safetensors")


def junk(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"123")
    return str(tmp_path / "x.safetensors")


def cut(tmp_path):
    (tmp_path / "x.safetensors").write_bytes((WEIGHTS / "dfgan_start.safetensors").read_bytes()[:9000])
    return str(tmp_path / "x.safetensors")


def untrained(tmp_path):
    return str(Run.create(tmp_path / "new", gancls()).folder)


def wider(tmp_path):
    return weights_of(gancls(**{"model.ngf": 4}), tmp_path / "x.safetensors")


def without_discriminator(tmp_path):
    return weights_of(gancls(), tmp_path / "x.safetensors", drop="discriminator")


def deaf(tmp_path):
    return weights_of(gancls(), tmp_path / "x.safetensors", {"text": "of somebody else"})


def own_encoder(tmp_path):
    return weights_of(gancls(**{"encoders.text": OWN}), tmp_path / "x.safetensors", {"text": "of its run"})


def infinite(tmp_path):
    path = Path(weights_of(gancls(), tmp_path / "x.safetensors"))
    tensors, about = read_checkpoint(path)
    next(value for value in tensors.values() if value.is_floating_point()).fill_(torch.inf)
    write_checkpoint(path, tensors, about)
    return str(path)


def a_clip(tmp_path):
    return weights_of(load_recipe("clip_toy"), tmp_path / "x.safetensors", {})


def a_judge(tmp_path):
    return weights_of(load_recipe("judge_toy"), tmp_path / "x.safetensors", {})


BAD = {
    "no such name": (
        lambda _: "gancls_moon",
        "gancls_moon: no run, checkpoint or shipped weights.*; shipped: dfgan_clip",
    ),
    "no such file": (missing, r"no\.safetensors: no such file; shipped: "),
    "a folder": (a_folder, r"x\.safetensors: is no file; shipped: "),
    "junk": (junk, r"x\.safetensors: not a whole checkpoint .*take another"),
    "cut off": (cut, r"x\.safetensors: not a whole checkpoint .*take another"),
    "not finite": (infinite, "is not finite"),
    "never trained": (untrained, "has no checkpoint yet; train it first"),
    "a long name": (lambda _: MANY, r"aaa\.\.\.: File name too long; shipped: "),
    "a generator alone": (
        lambda _: "gancls_toy",
        "holds no discriminator; name a run, or a checkpoint, or a file of t2i",
    ),
    "half of it": (without_discriminator, "holds no discriminator"),
    "another task": (
        lambda _: "dfgan_start",
        r"dfgan_start\.safetensors holds dfgan, not gancls; name weights of gancls",
    ),
    "a CLIP": (a_clip, "holds clip, not gancls; name weights of gancls"),
    "a judge": (a_judge, "holds judge, not gancls; name weights of gancls"),
    "other sizes": (
        wider,
        "is of shape .*, not .*; set model and data.size as in that file's recipe, or name another st",
    ),
    "another encoder": (
        deaf,
        "another text encoder than the toy-clip .*; set encoders.text to the encoder of that file",
    ),
    "an encoder of its own": (own_encoder, "another text encoder than the toy-clip .*; set encoders.text to"),
}


def refused(recipe, folder, message):
    with pytest.raises(InputError, match=f"training.start: .*{message}") as caught:
        next(experiment.run_recipe(recipe, folder))
    assert "\n" not in str(caught.value) and "resume with" not in str(caught.value)
    assert not folder.exists()


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    def load(*_, **__):
        raise AssertionError("pictures were loaded first")

    monkeypatch.setattr(assembly.data, "load", load)


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_a_bad_start_is_refused_before_anything_is_written(make, message, tmp_path):
    refused(gancls(**{"training.start": make(tmp_path)}), tmp_path / "run", message)


def test_the_command_line_says_it_in_one_line_and_writes_nothing(tmp_path):
    given = ["--set", "training.start=gancls_toy", "--folder", str(tmp_path / "run")]
    for processes in ("1", "2"):
        result = CliRunner().invoke(app, ["train", "gancls", *given, "--processes", processes])
        assert isinstance(result.exception, InputError) and "training.start: " in str(result.exception)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("start", [" ", "\t\n"])
def test_a_blank_start_is_refused(start):
    with pytest.raises(InputError, match=r"training\.start: .* is blank; name weights, or leave it empty"):
        gancls(**{"training.start": start})


@pytest.mark.parametrize("task", ["clip_toy", "judge_toy"])
def test_an_encoder_does_not_begin_with_a_system_nor_is_sent_to_export_one(task, tmp_path):
    recipe = load_recipe(task, **{"training.start": "dfgan_start"})
    refused(recipe, tmp_path / "run", f"holds dfgan, not {recipe.task}; name weights of {recipe.task}")
    empty = tmp_path / "empty.safetensors"
    write_checkpoint(empty, {}, {"step": 0, "recipe": plain(recipe)})
    refused(recipe.override(**{"training.start": str(empty)}), tmp_path / "run", "name a run, or a checkpoint$")


def test_a_judge_begins_with_one_of_the_same_pictures(tmp_path):
    recipe = load_recipe("judge_toy")
    other = recipe.override(**{"data.size": 32})
    weights_of(other, tmp_path / "x.safetensors", {})
    refused(recipe.override(**{"training.start": str(tmp_path / "x.safetensors")}), tmp_path / "run", "other sizes")


def test_an_encoder_that_is_still_to_be_trained_must_be_set_alike(tmp_path):
    recipe = gancls(**{"encoders.text": OWN})
    path = weights_of(recipe, tmp_path / "x.safetensors", {"text": "of its run"})
    again = recipe.override(**{"training.start": path})
    assert sampling.check_start(again) == {"source": path, "step": 0, "sha256": sha256(path)}
    longer = again.override(**{"encoders.text.options": OWN["options"] | {"training.steps": 3}})
    refused(
        longer, tmp_path / "run", "another text encoder than encoders.text trains; set encoders.text and data as in"
    )
    wide = again.override(**{"model.ngf": 4})
    refused(wide, tmp_path / "run", "networks of other sizes; set model and data.size")
    plain_one = weights_of(gancls(), tmp_path / "y.safetensors")
    refused(
        again.override(**{"training.start": plain_one}), tmp_path / "run", "another text encoder than encoders.text"
    )


def test_the_start_of_an_encoder_that_is_trained_for_a_run_is_looked_at_first(tmp_path):
    own = replace_options(OWN, **{"training.start": "gancls_toy"})
    recipe = gancls(**{"encoders.text": own})
    with pytest.raises(InputError, match=r"encoders\.text\.options: training\.start: .* holds gancls, not clip"):
        next(experiment.run_recipe(recipe, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def replace_options(settings, **changes):
    return {**settings, "options": settings["options"] | changes}


def test_training_begins_with_what_a_recipe_with_other_teachers_left(tmp_path):
    """Only the encoders that the networks read with bind them."""
    told = {"text": encoders.load_encoder("toy-clip").fingerprint, "clip": "taught it"}
    path = weights_of(gancls(), tmp_path / "x.safetensors", told)
    recipe = gancls(**{"training.start": path, "clip.weight": 1.0})
    assert sampling.check_start(recipe)["step"] == 0
    found = dict.fromkeys(assembly.ROLES, encoders.load_encoder("toy-clip"))
    sampling.load_start(assembly.build(recipe, found), path, found)


def test_a_generator_alone_is_not_exported_whole(tmp_path):
    with pytest.raises(
        InputError, match=r"gancls_toy\.safetensors: holds no discriminator; give a checkpoint of a run"
    ):
        sampling.export(Run.open(WEIGHTS / "gancls_toy.safetensors"), tmp_path / "x.safetensors", "", whole=True)
    assert not list(tmp_path.iterdir())
