"""Recipes: what YAML, arguments and defaults become, what is refused, and that the shipped ones build their tasks."""

import json
from dataclasses import asdict, fields
from types import SimpleNamespace

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from t2ilib import assembly
from t2ilib.encoders.guidance import ClipGuidance
from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.models.vit import random_vit
from t2ilib.settings import read
from t2ilib.training import (
    ClipSettings,
    DataSettings,
    EncoderSettings,
    EvaluationSettings,
    Recipe,
    TrainingSettings,
    load_recipe,
    recipe_names,
)
from t2ilib.training.recipe import parse_yaml, recipe_from

SHIPPED = recipe_names()
SYSTEMS = [name for name in SHIPPED if assembly.is_system(load_recipe(name))]


def test_every_shipped_recipe_reads_and_round_trips(tmp_path):
    assert len(SYSTEMS) >= 10 and len(SHIPPED) > len(SYSTEMS)
    for name in SHIPPED:
        recipe = load_recipe(name)
        (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
        assert load_recipe(tmp_path / "copy.yaml") == recipe
        assembly.check(recipe)


def test_arguments_win_over_yaml_and_yaml_over_defaults(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("task: gancls\ntraining: {steps: 5, log_every: 1}\n")
    recipe = load_recipe(path, **{"training.steps": 7, "model.ngf": 8, "training.gradient_clip": 1})
    assert recipe.training.steps == 7
    assert recipe.training.log_every == 1
    assert recipe.training.sample_every == TrainingSettings().sample_every
    assert recipe.model == {"ngf": 8}
    assert recipe.training.gradient_clip == 1.0 and isinstance(recipe.training.gradient_clip, float)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("task: gancls\nspeed: 3\n", "unknown key speed"),
        ("task: gancls\ntraining: {stepz: 3}\n", "training: unknown key stepz"),
        ("task: gancls\ntraining: {steps: many}\n", "steps: 'many' is not of type int"),
        ("task: gancls\ntraining: {steps: true}\n", "steps: True is not of type int"),
        ("task: gancls\ntraining: {steps: 1.5}\n", "steps: 1.5 is not of type int"),
        ("task: gancls\ntraining: {precision: fp8}\n", "fp8"),
        ("task: gancls\ntraining: {steps: 0}\n", "at least 1"),
        ("task: gancls\ntraining: {log_every: 30}\n", "not a multiple of log_every"),
        ("task: gancls\ntraining: [steps]\n", "training: ['steps'] is not a mapping"),
        ("training: {steps: 3}\n", "at least the key 'task'"),
        ("task: dfgan\nclip: {lambda: 3}\n", "clip: unknown key lambda; known are weight"),
        ("task: dfgan\nclip: {weight: heavy}\n", "clip: weight: 'heavy' is not of type float"),
        ("task: dfgan\nclip: {start: 1.5}\n", "clip: start: 1.5 is not of type int"),
        ("task: dfgan\nclip: {released: 1}\n", "clip: released: 1 is not of type bool"),
        ("task: dfgan\nevaluation: {truncate: 0.88}\n", "evaluation: unknown key truncate; known are n, truncation"),
        ("task: dfgan\nevaluation: {n: 1}\n", "evaluation.n = 1: must be at least 2"),
        ("task: dfgan\nencoders: {text: {name: 3}}\n", "encoders.text: name: 3 is not of type str"),
        ("task: dfgan\nencoders: {text: toy-clip}\n", "encoders.text: 'toy-clip' is not a mapping"),
        ("task: dfgan\nencoders: {text: {encoder: x}}\n", "encoders.text: unknown key encoder; known are name"),
        ("task: dfgan\ndata: {crop: 256.5}\n", "data: crop: 256.5 is not of type int"),
        ("[: not yaml", "not YAML that can be read (line 1: "),
        ("task: gancls\nabout: one\nabout: two\n", "line 3: the key 'about' is there twice"),
        ("task: gancls\nmodel: {ngf: 3, ngf: 4}\n", "line 2: the key 'ngf' is there twice"),
        ("a: &a [1, 1]\nb: *a\n", "line 2: the alias *a; write it out"),
        ("a: &a [*a]\n", "line 1: the alias *a"),
        ("a: " + "[" * 40 + "]" * 40, "nested too deeply"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        (
            "task: !!python/object/apply:os.system [ls]\n",
            "line 1: the tag !!python/object/apply:os.system; leave it out",
        ),
        ("task: a\nmodel: {a: !!set {b}}\n", "line 2: the tag !!set"),
        ("task: !!binary aGVsbG8=\n", "line 1: the tag !!binary"),
        ("task: !!bool maybe\n", "the tag !!bool"),
        ("task: !own 3\n", "the tag !own"),
        ("data: {options: {train: 2020-01-01}}\n", "line 1: 2020-01-01 is a timestamp; put it in quotes"),
        ("task: =\n", "line 1: = is a value; put it in quotes"),
        ("data: {options: {1: a, b: 2}}\n", "line 1: the key 1 is no text; put it in quotes"),
        ("yes: 3\n", "line 1: the key yes is no text"),
        ("model: {<<: {ngf: 3}}\n", "line 1: the key << is no text"),
        ("? [a, b]\n: 3\n", "a key that is not a name"),
        ("task: 2001-99-99\n", "line 1: 2001-99-99 is a timestamp"),
        ("task: gancls\0\n", "special characters are not allowed"),
        ("# " + "x" * (1 << 20), "larger than 1024 KiB"),
    ],
)
def test_bad_recipe_is_named(tmp_path, text, named):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        load_recipe(path)
    assert named in str(error.value)
    assert "bad.yaml" in str(error.value) or "training." in str(error.value) or "evaluation." in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(deadline=None, derandomize=True, max_examples=200)
def test_what_is_read_from_yaml_can_be_written_as_json(value):
    """A cache's name and a checkpoint are JSON: values and keys that it cannot hold are refused in one line."""
    try:
        found = parse_yaml(yaml.safe_dump(value), "here")
    except InputError as error:
        assert str(error).startswith("here: not YAML that can be read (line ")
        with pytest.raises(TypeError):
            yaml_as_json(value)
    else:
        assert found == value and json.loads(json.dumps(found, sort_keys=True)) == value


def yaml_as_json(value):
    """Raise TypeError where JSON has no such value or key."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yaml_as_json(item)
    else:
        json.dumps(value)


def test_bad_override_is_named():
    with pytest.raises(InputError, match=r"training\.stepz: unknown key stepz; known are steps"):
        load_recipe("gancls_toy", **{"training.stepz": 3})
    with pytest.raises(InputError, match="is a group"):
        load_recipe("gancls_toy", training=3)
    with pytest.raises(InputError, match=r"training\.steps\.more"):
        load_recipe("gancls_toy", **{"training.steps.more": 3})
    with pytest.raises(InputError, match="no such recipe; shipped are"):
        load_recipe("gancls_moon")
    with pytest.raises(InputError, match="mapping"):
        recipe_from([], "here")


@pytest.mark.parametrize(
    "changes",
    [
        {"data.crop": 256, "data.size": 304},
        {"training.log_every": 7, **{f"training.{name}_every": 35 for name in ("sample", "checkpoint", "evaluate")}},
    ],
)
def test_the_order_of_changes_decides_nothing(changes):
    backwards = dict(reversed(changes.items()))
    assert load_recipe("gancls_toy", **changes) == load_recipe("gancls_toy", **backwards)


@pytest.mark.parametrize("value", [2e-4, "2e-4", "0.0002"])
@pytest.mark.parametrize("key", ["clip.weight", "training.gradient_clip", "evaluation.truncation"])
def test_numbers_are_read_alike_everywhere(key, value):
    """YAML takes 2e-4 for text; a recipe, an argument and a hyper-parameter read it as the same number."""
    group, name = key.split(".")
    assert getattr(getattr(load_recipe("dfgan_toy", **{key: value}), group), name) == 2e-4
    assert getattr(getattr(recipe_from({"task": "dfgan", group: {name: value}}, "here"), group), name) == 2e-4
    assert read(TrainingSettings, {"gradient_clip": value}, "here").gradient_clip == 2e-4
    assert assembly.build(load_recipe("dfgan_toy", **{"model.lr": value, "clip.weight": 0}), {}).config.lr == 2e-4


CLIP = {"weight": 4.0, "start": 5, "ramp": 6, "crops": 1, "released": True}


def test_groups_are_read_and_written(tmp_path):
    values = {"task": "dfgan", "clip": {**CLIP, "weight": 4}, "evaluation": {"truncation": 1, "n": 50}}
    values["encoders"] = {"clip": {"name": "clip", "options": {"model": "tiny"}}, "judge": {"name": "toy-clip"}}
    recipe = recipe_from(values, "here")
    assert asdict(recipe.clip) == CLIP and isinstance(recipe.clip.weight, float)
    assert recipe.evaluation == EvaluationSettings(50, 1.0)
    assert recipe.encoders["clip"] == EncoderSettings("clip", {"model": "tiny"})
    (tmp_path / "copy.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "copy.yaml") == recipe


def test_roles_without_an_encoder_of_their_own_have_the_texts():
    recipe = recipe_from({"task": "dfgan", "encoders": {"text": {"name": "a"}, "judge": {"name": "b"}}}, "here")
    assert recipe.encoder("clip") == ("text", EncoderSettings("a"))
    assert recipe.encoder("judge") == ("judge", EncoderSettings("b"))
    assert Recipe("dfgan").encoder("judge") == ("text", EncoderSettings("toy-clip"))


def test_without_the_groups_there_is_no_clip_loss_and_plain_noise():
    for values in ({"task": "dfgan"}, {"task": "dfgan", "clip": None, "evaluation": {}, "encoders": {}}):
        recipe = recipe_from(values, "here")
        assert recipe.clip == ClipSettings() and recipe.clip.weight == 0 and not recipe.clip.released
        assert recipe.evaluation.truncation == 0 and recipe.data == DataSettings()


def test_arguments_reach_the_groups():
    changes = {"clip.weight": 2, "clip.start": 7, "evaluation.truncation": 0.5, "data.crop": 48}
    changes |= {"encoders.clip.name": "clip", "encoders.clip.options.model": "ViT"}
    recipe = load_recipe("dfgan_toy", **changes)
    assert (recipe.clip.weight, recipe.clip.start) == (2.0, 7)
    assert recipe.encoders["clip"] == EncoderSettings("clip", {"model": "ViT"})
    assert (recipe.evaluation.truncation, recipe.data.crop) == (0.5, 48)
    assert recipe.encoders["judge"] == load_recipe("dfgan_toy").encoders["judge"]  # the rest stays
    for key in ("clip.lambda", "evaluation.truncate", "data.crops", "encoders.text.nam"):
        with pytest.raises(InputError, match=f"{key}: unknown key"):
            load_recipe("dfgan_toy", **{key: 1})
    for key in ("clip", "evaluation"):
        with pytest.raises(InputError, match=f"{key}: is a group; set one of its keys, as {key}"):
            load_recipe("dfgan_toy", **{key: 3})


def test_every_clip_setting_is_one_of_the_loss():
    assert {field.name for field in fields(ClipSettings)} == {field.name for field in fields(ClipGuidance)} - {
        "encoder"
    }


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_shipped_recipe_builds_its_system(name):
    recipe = load_recipe(name)
    seeing = SimpleNamespace(sentence_dim=512, word_dim=512, name="x", encode_images=None)
    with torch.device("meta"):
        eye = random_vit(size=224, grid=7, width=768, layers=12, embed_dim=512)
        seeing.model, seeing.mean, seeing.std = SimpleNamespace(visual=eye.visual), eye.mean, eye.std
        system = assembly.build(recipe, {"text": seeing, "clip": seeing})
    config = system.config
    assert config.image_size == (recipe.data.crop or recipe.data.size)
    assert config.embedding_dim == 512
    assert recipe.data.crop <= recipe.data.size
    noise, sentence = torch.empty(2, system.noise_dim, device="meta"), torch.empty(2, 512, device="meta")
    assert system.generate(Text(sentence), noise).shape == (2, 3, config.image_size, config.image_size)
    assert (system.guidance is not None) == bool(recipe.clip.weight)


def test_shipped_clip_recipes_are_scored_by_another_clip():
    """A generator that was trained against a CLIP fools that CLIP first of all."""
    guided = [load_recipe(name) for name in SYSTEMS if load_recipe(name).clip.weight]
    assert len(guided) >= 3
    for recipe in guided:
        assert recipe.encoder("judge")[1] != recipe.encoder("clip")[1], recipe.about


PAPERS = {  # recipes that say "the paper's": what the paper has, in our words
    "gancls_birds": {"smoothing": 1.0, "feature_matching": 0.0, "l1": 0.0, "halve_negatives": True, "joint": True},
    "dfgan_birds": {"nf": 32, "lr": 1e-4, "discriminator_lr": 4e-4, "penalty": 2.0, "penalty_every": 1},
    "dfgan_coco": {"nf": 32, "lr": 1e-4, "discriminator_lr": 4e-4, "penalty": 2.0, "penalty_every": 1},
    "wgan_gp_birds": {"penalty": 10.0, "batch_norm": False, "lr": 1e-4, "betas": (0.0, 0.9), "critic_steps": 5},
}


@pytest.mark.parametrize("name", PAPERS)
def test_recipes_that_say_the_papers_have_the_papers_values(name):
    recipe = load_recipe(name)
    config = assembly.build(recipe, {}).config
    assert {key: getattr(config, key) for key in PAPERS[name]} == PAPERS[name]
    assert config.ema == 0.0 and recipe.training.precision == "fp32" and not recipe.training.gradient_clip


@pytest.mark.parametrize("name", ["galip_birds", "galip_coco"])
def test_galips_recipes_have_the_released_settings(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        config = assembly.build(recipe, {}).config
    expected = {"nf": 64, "lr": 1e-4, "discriminator_lr": 4e-4, "penalty": 2.0, "similarity": 4.0, "ema": 0.0}
    expected |= {"taps": (2, 5, 9), "prompts": tuple(range(2, 10)), "preprocessing": "released", "image_size": 224}
    assert {key: getattr(config, key) for key in expected} == expected
    assert recipe.training.precision == "fp16" and config.batch_size == {"galip_birds": 16, "galip_coco": 64}[name]


def test_the_stabilised_reimplementations_values_are_called_so():
    config = assembly.build(load_recipe("gancls_birds_stabilised"), {}).config
    assert (config.smoothing, config.feature_matching, config.l1, config.halve_negatives) == (0.9, 100.0, 50.0, False)
    assert "reimplementation" in load_recipe("gancls_birds_stabilised").about


def test_negative_truncation_is_refused_before_anything_is_trained():
    with pytest.raises(InputError, match=r"evaluation\.truncation = -0\.5"):
        load_recipe("dfgan_toy", **{"evaluation.truncation": -0.5})


def test_pictures_are_not_moved_out_of_what_is_shown():
    assert load_recipe("dfgan_toy", **{"data.size": 64, "data.crop": 32, "data.shift": 31}).data.shift == 31
    for changes in ({"data.size": 64, "data.shift": 64}, {"data.size": 64, "data.crop": 32, "data.shift": 32}):
        with pytest.raises(InputError, match=r"data\.shift = .*smaller than what is shown"):
            load_recipe("dfgan_toy", **changes)
