"""Every key of every recipe with values that it cannot have: named, before anything is loaded.

The keys are those of the dataclasses, so a new one is tried from the day it exists.
"""

import math
from dataclasses import fields
from typing import get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2ilib.assembly import TASKS, check
from t2ilib.errors import InputError
from t2ilib.training import load_recipe
from t2ilib.training.recipe import Recipe, parse_yaml, recipe_names

RECIPES = {"gancls": "gancls_toy", "wgan": "wgan_toy", "dfgan": "dfgan_toy", "clip": "clip_toy", "judge": "judge_toy"}
GROUPS = [item.name for item in fields(Recipe) if item.name not in ("task", "about", "model", "encoders")]
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
CHANGES = (
    *("", "=", "training", "training=1", "training.steps", "training.steps=", "a.b.c=1", "training.steps.x=1"),
    *("model.ngf=[", "model.ngf=*a", "=3", "training.steps=!!int x", "data.source={a: 1}", "encoders=3"),
    *("encoders.text=toy-clip", "encoders.text.name=3", "task=wgan", "data.options.train=2020-01-01"),
    *("data.options={train: {1: a, b: 2}}", "data.flip=!!bool maybe", "training.steps=!!int ''", "model=!!set {a}"),
    *("model" + ".a" * 5000 + "=1", "data.options.train=!!binary AA==", "=".join("a" * 3), "data.options.train=.nan"),
)
FEW = settings(deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck))


def keys() -> list[tuple[str, str, object]]:
    """Return (recipe, dotted key, type) of everything that a recipe of each task can say."""
    shared = [("gancls_toy", group, get_type_hints(Recipe)[group]) for group in GROUPS]
    models = [(name, "model", TASKS[task].Config) for task, name in RECIPES.items()]
    return [
        (name, f"{group}.{key}", hint)
        for name, group, cls in (*shared, *models)
        for key, hint in get_type_hints(cls).items()
        if key in {item.name for item in fields(cls)}
    ]


def wrong(hint: object) -> list[object]:
    """Return values that no key of a type can have."""
    kinds = {kind for kind in (hint, *get_args(hint)) if isinstance(kind, type)}
    values: list[object] = [{"a": 1}, [[1]], [], -(10**30), 10**30, math.nan, math.inf, -math.inf, "1e999", "\x00"]
    if get_origin(hint) is dict:
        return [[1], "text", 3, None]
    if kinds == {str}:
        return [1, True, None, [1], {"a": 1}]
    if kinds == {bool}:
        return [*values, 1, 0, "true", None]
    return [value for value in values if not (value == [] and get_origin(hint) is tuple)]  # a tuple of none


@pytest.fixture
def refuse(request):
    """Assert that a recipe with a change is refused in one line, and count it."""

    def refused(name: str, key: str, value: object) -> None:
        with pytest.raises(InputError) as error:
            check(load_recipe(name, **{key: value}))
        assert "\n" not in str(error.value) and key.rpartition(".")[2] in str(error.value)
        request.node.user_properties.append(("hostile", ["settings", "refused clearly"]))

    return refused


@pytest.mark.parametrize(("name", "key", "hint"), keys(), ids=lambda part: part if isinstance(part, str) else "")
def test_values_that_no_key_can_have(refuse, name, key, hint):
    for value in wrong(hint):
        refuse(name, key, value)


def test_what_recipes_say_holds(request):
    """The shipped recipes are accepted: what the tests above see refused is the value, not the recipe."""
    for name in recipe_names():
        check(load_recipe(name))
        request.node.user_properties.append(("hostile", ["settings", "accepted rightly"]))


@FEW
@given(VALUES)
def test_any_value_in_any_place_is_read_or_refused_in_one_line(value):
    """A recipe made of anything: InputError of one line, or the very recipe that was written."""
    whole = {"task": "gancls", "model": {"ngf": 8}}
    for place in ("task", "about", "model", "data", "encoders", "clip", "training", "evaluation", "other"):
        text = yaml.safe_dump({**whole, place: value}, allow_unicode=True)
        try:
            recipe = load_recipe_text(text)
            check(recipe)
        except InputError as error:
            assert "\n" not in str(error).strip("\n")
        else:
            again = load_recipe_text(recipe.to_yaml())
            assert again == recipe


def load_recipe_text(text: str) -> Recipe:
    from t2ilib.training.recipe import recipe_from

    return recipe_from(parse_yaml(text, "here"), "here")


@FEW
@given(st.binary(max_size=200))
def test_any_bytes_as_a_recipe(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_bytes(data)
    with pytest.raises(InputError) as error:
        load_recipe(str(path))
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [1]\nb: *a",
        "task: gancls\ntask: wgan",
        "task: !!python/object/apply:os.system [true]",
        "[" * 5000,
        "{" * 5000,
        "task: 2026-13-45",
        "task: gancls\nmodel: {ngf: 0b2}",
        "? [a]\n: b",
        "- task",
        "gancls",
        "",
        "task: gancls\n\ttraining: {}",
        "task: gancls\nx: " + "9" * 5000,
    ],
    ids=range(13),
)
def test_yaml_that_is_no_recipe(ask, tmp_path, text):
    (tmp_path / "r.yaml").write_text(text)
    ask("train", "gancls", "--recipe", "r.yaml", kind="recipes")


@pytest.mark.parametrize("change", CHANGES)
def test_changes_that_say_nothing(ask, change):
    ask("train", "gancls", "--set", change, kind="settings")


def test_the_bounds_of_ranges_are_the_values_that_count():
    """One step is a run; none is not; and the message says what would do."""
    check(load_recipe("gancls_toy", **{"training.steps": 1}))
    with pytest.raises(InputError, match=r"training.steps = 0: must be at least 1"):
        load_recipe("gancls_toy", **{"training.steps": 0})
