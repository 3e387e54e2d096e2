import pytest

from t2ilib.errors import InputError
from t2ilib.training import load_recipe, recipe_names
from t2ilib.training.recipe import TrainingSettings, recipe_from


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
