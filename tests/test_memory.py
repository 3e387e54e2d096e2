"""Networks that find no room, or not that of their checkpoint, are refused before they take any memory.

Looking draws no random number, so that it changes no trained bit.
"""

import resource
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch import nn

from t2ilib import assembly
from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.files import WEIGHTS
from t2ilib.memory import check_memory, size_of
from t2ilib.training.checkpoints import read_checkpoint
from t2ilib.training.recipe import load_recipe, recipe_from

SMALL = {
    "gancls_toy": {"model.ngf": 4, "model.ndf": 4},
    "wgan_toy": {"model.ngf": 4, "model.ndf": 4},
    "dfgan_toy": {"model.nf": 4},
}
HUGE = {
    "gancls_toy": {"model.ngf": 10_000},
    "wgan_toy": {"model.ndf": 10_000},
    "dfgan_toy": {"model.nf": 10_000},
    "clip_toy": {"model.image_width": 9984, "model.image_layers": 40},
}


def resident() -> int:
    """The most kilobytes that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture
def four_gibibytes(monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4 << 30))


def test_the_size_is_that_of_weights_and_buffers():
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    assert size_of(network) == size_of(network.to("meta")) == 4 * (15 + 5 + 4 * 5) + 8


def test_what_is_larger_than_the_free_memory_is_named(four_gibibytes):
    check_memory(4 << 30, "model", "choose a smaller one")
    with pytest.raises(InputError, match=r"^model: takes 4\.5 GiB of memory, of which 4\.0 are free; choose a smaller"):
        check_memory(9 << 29, "model", "choose a smaller one")


@pytest.mark.parametrize("name", HUGE)
def test_networks_that_find_no_room_are_refused_before_they_take_any(name, four_gibibytes):
    assembly.check(load_recipe(name))
    recipe, before = load_recipe(name, **HUGE[name]), resident()
    with pytest.raises(InputError, match=rf"^model: {recipe.task} of these sizes: takes .* are free; choose smaller"):
        assembly.check(recipe)
    assert resident() - before < 100_000


def test_training_needs_more_than_painting(monkeypatch):
    recipe = load_recipe("gancls_toy")
    one = size_of(assembly.TASKS["gancls"].outline(assembly.model_values(recipe), {}))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2 * one))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assembly.check(recipe, trained=False)
    with pytest.raises(InputError, match="gancls of these sizes: takes"):
        assembly.check(recipe)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assembly.check(recipe)  # gradients and moments then lie elsewhere


@pytest.mark.parametrize("name", SMALL)
def test_looking_at_the_sizes_changes_no_random_number_and_no_weight(name):
    recipe, found = load_recipe(name, **SMALL[name]), {"text": load_encoder("toy-clip")}
    task, values = assembly.TASKS[recipe.task], assembly.model_values(recipe)
    torch.manual_seed(3)
    plain = task.build(values, found).state_dict()
    drawn = torch.rand(5)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assembly.check(recipe)
    outline = task.outline(values, found).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    looked = assembly.build(recipe, found).state_dict()
    assert torch.equal(torch.rand(5), drawn)
    assert plain.keys() == looked.keys() == outline.keys()
    for key, value in plain.items():
        assert torch.equal(looked[key], value) and outline[key].is_meta and outline[key].shape == value.shape


def test_looking_at_a_clip_draws_no_random_number():
    before = torch.get_rng_state()
    assembly.check(load_recipe("clip_toy"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("key", ["model.ngf", "model.projected_dim"])
def test_a_recipe_that_is_not_of_its_checkpoint_takes_no_memory(key):
    path = WEIGHTS / "gancls_toy.safetensors"
    tensors, about = read_checkpoint(path)
    recipe = recipe_from(about["recipe"], "about")
    assembly.build_system(recipe, None, (tensors, about, path))
    other, before = recipe.override(**{key: 1000}), resident()
    with pytest.raises(InputError, match=r"gancls_toy\.safetensors: ema\.\S+ is of shape .*; take another checkpoint"):
        assembly.build_system(other, None, (tensors, about, path))
    assert resident() - before < 200_000


@pytest.mark.parametrize("fault", ["variance", "not a number"])
def test_a_checkpoint_that_paints_no_numbers_is_named(fault):
    path = WEIGHTS / "gancls_toy.safetensors"
    tensors, about = read_checkpoint(path)
    name = next(name for name in tensors if name.endswith("running_var"))
    tensors[name] = -tensors[name] if fault == "variance" else tensors[name] * torch.nan
    told = {"variance": "negative, a variance", "not a number": "not finite"}[fault]
    with pytest.raises(InputError, match=rf"gancls_toy\.safetensors: {name} is {told}; take another checkpoint"):
        assembly.build_system(recipe_from(about["recipe"], "about"), None, (tensors, about, path))
