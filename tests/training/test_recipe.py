from dataclasses import asdict, fields
from types import SimpleNamespace

import pytest
import torch

from t2ilib import models
from t2ilib.errors import InputError
from t2ilib.sampling import model_config
from t2ilib.text.guidance import ClipGuidance
from t2ilib.training import load_recipe, recipe_names
from t2ilib.training.recipe import ClipSettings, EvaluationSettings, TrainingSettings, recipe_from


def test_every_shipped_recipe_reads_and_round_trips(tmp_path):
    assert recipe_names()
    for name in recipe_names():
        recipe = load_recipe(name)
        (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
        assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_arguments_win_over_yaml_and_yaml_over_defaults(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("system: gancls\ntraining: {steps: 5, log_every: 1}\n")
    recipe = load_recipe(path, **{"training.steps": 7, "model.ngf": 8, "training.ema": 0})
    assert recipe.training.steps == 7
    assert recipe.training.log_every == 1
    assert recipe.training.sample_every == TrainingSettings().sample_every
    assert recipe.model == {"ngf": 8}
    assert recipe.training.ema == 0.0 and isinstance(recipe.training.ema, float)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("system: gancls\nspeed: 3\n", "unknown key speed"),
        ("system: gancls\ntraining: {stepz: 3}\n", "training: unknown key stepz"),
        ("system: gancls\ntraining: {steps: many}\n", "'many' is not of type int"),
        ("system: gancls\ntraining: {steps: true}\n", "True is not of type int"),
        ("system: gancls\ntraining: {precision: fp8}\n", "fp8"),
        ("system: gancls\ntraining: {steps: 0}\n", "at least 1"),
        ("system: gancls\ntraining: {log_every: 30}\n", "not a multiple of log_every"),
        ("training: {steps: 3}\n", "at least the key 'system'"),
        ("system: dfgan\nclip: {lambda: 3}\n", "clip: unknown key lambda; known are weight"),
        ("system: dfgan\nclip: {weight: heavy}\n", "clip: weight: 'heavy' is not of type float"),
        ("system: dfgan\nclip: {start: 1.5}\n", "clip: start: 1.5 is not of type int"),
        ("system: dfgan\nclip: {released: 1}\n", "clip: released: 1 is not of type bool"),
        ("system: dfgan\nevaluation: {truncate: 0.88}\n", "evaluation: unknown key truncate; known are encoder"),
        ("system: dfgan\nevaluation: {encoder: 3}\n", "evaluation: encoder: 3 is not of type str"),
        ("system: dfgan\ndata: {crop: 256.5}\n", "data: crop: 256.5 is not of type int"),
        ("[: not yaml", "not a YAML file"),
    ],
)
def test_bad_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert named in str(error.value)
    assert "bad.yaml" in str(error.value) or "training." in str(error.value)


def test_bad_override_is_named():
    with pytest.raises(InputError, match=r"training\.stepz: unknown key stepz; known are steps"):
        load_recipe("gancls_toy", **{"training.stepz": 3})
    with pytest.raises(InputError, match="is a group"):
        load_recipe("gancls_toy", training=3)
    with pytest.raises(InputError, match="no such recipe; shipped are"):
        load_recipe("gancls_moon")
    with pytest.raises(InputError, match="mapping"):
        recipe_from([], "here")


CLIP = {
    "weight": 4,
    "encoder": "clip",
    "options": {"model": "tiny"},
    "start": 5,
    "ramp": 6,
    "crops": 1,
    "released": True,
}


def test_clip_and_evaluation_groups_are_read_and_written(tmp_path):
    values = {"system": "dfgan", "clip": CLIP, "evaluation": {"encoder": "toy-clip", "truncation": 1}}
    recipe = recipe_from(values, "here")
    assert asdict(recipe.clip) == CLIP and isinstance(recipe.clip.weight, float)
    assert recipe.evaluation == EvaluationSettings("toy-clip", {}, 1.0)
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_without_the_groups_there_is_no_clip_loss_and_plain_noise():
    for values in ({"system": "dfgan"}, {"system": "dfgan", "clip": None, "evaluation": {}}):
        recipe = recipe_from(values, "here")
        assert recipe.clip == ClipSettings() and recipe.clip.weight == 0 and not recipe.clip.released
        assert recipe.evaluation.truncation == 0 and recipe.evaluation.encoder == "" == recipe.clip.encoder


def test_arguments_reach_the_groups():
    changes = {
        "clip.weight": 2,
        "clip.start": 7,
        "clip.options.model": "ViT",
        "evaluation.truncation": 0.5,
        "data.crop": 48,
    }
    recipe = load_recipe("dfgan_toy", **changes)
    assert (recipe.clip.weight, recipe.clip.start, recipe.clip.options) == (2.0, 7, {"model": "ViT"})
    assert (recipe.evaluation.truncation, recipe.data.crop) == (0.5, 48)
    assert recipe.evaluation.encoder == load_recipe("dfgan_toy").evaluation.encoder  # the rest stays
    for key in ("clip.lambda", "evaluation.truncate", "data.crops"):
        with pytest.raises(InputError, match=f"{key}: unknown key"):
            load_recipe("dfgan_toy", **{key: 1})
    for key in ("clip", "evaluation"):
        with pytest.raises(InputError, match=f"{key}: is a group; set one of its keys, as {key}"):
            load_recipe("dfgan_toy", **{key: 3})


def test_every_clip_setting_is_one_of_the_loss():
    settings = {field.name for field in fields(ClipSettings)} - {"encoder", "options"}
    assert settings == {field.name for field in fields(ClipGuidance)} - {"encoder"}


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_builds_its_system(name):
    recipe = load_recipe(name)
    config = model_config(recipe, SimpleNamespace(sentence_dim=512))
    with torch.device("meta"):
        system = models.build(recipe.system, **config)
    assert system.config.image_size == (recipe.data.crop or recipe.data.size)
    assert system.config.embedding_dim == 512
    assert recipe.data.crop <= recipe.data.size
    pictures = system.generator(
        torch.empty(2, system.config.noise_dim, device="meta"), torch.empty(2, 512, device="meta")
    )
    assert pictures.shape == (2, 3, system.config.image_size, system.config.image_size)


def test_shipped_clip_recipes_are_scored_by_another_clip():
    """A generator that was trained against a CLIP fools that CLIP first of all."""
    guided = [load_recipe(name) for name in recipe_names() if load_recipe(name).clip.weight]
    assert len(guided) >= 3
    for recipe in guided:
        teacher = recipe.clip if recipe.clip.encoder else recipe.text
        judge = recipe.evaluation
        assert judge.encoder and (judge.encoder, judge.options) != (teacher.encoder, teacher.options), recipe.about


def test_negative_truncation_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"evaluation\.truncation: -0\.5"):
        load_recipe("dfgan_toy", **{"evaluation.truncation": -0.5})
