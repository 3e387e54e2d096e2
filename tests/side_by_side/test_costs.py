"""How many weights, how fast, how much memory."""

import pytest
import torch

from t2ilib import assembly
from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.sampling import load_sampler
from t2ilib.side_by_side.costs import Living, painting_memory, parameters, pictures_per_second
from t2ilib.summary import weights
from t2ilib.training import Run


def test_living_counts_what_is_alive_and_the_most_at_a_time():
    with Living() as living:
        first = torch.zeros(1000)
        second = first + 1
        assert living.now == 8000
        del first
        view = second.view(10, 100)
        assert living.now == 4000  # a view takes nothing
        view.add_(1)
        assert living.now == 4000  # nor does what is done in place
        del second
        assert living.now == 4000  # the view keeps it
        del view
        assert living.now == 0
    assert living.most == 8000
    outside = torch.zeros(10)
    with Living() as living:
        same = outside.view(2, 5)
    assert living.most == 0 and same.shape == (2, 5)  # it was there before


def test_weights_are_those_of_the_networks(trained):
    run = Run.open(trained("a"))
    encoder = load_encoder("toy-clip")
    system, found = assembly.build(run.recipe, {"text": encoder}), parameters(run)
    assert (found.generator, found.discriminator) == (weights(system.generator), weights(system.discriminator))
    assert found.frozen == weights(encoder) > 1_000_000


def test_a_clip_that_teaches_counts_and_one_that_reads_too_counts_once():
    counted = {name: parameters(Run(ROOT / "figures" / "runs" / name)) for name in ("dfgan_toy", "dfgan_clip_toy")}
    assert counted["dfgan_toy"] == counted["dfgan_clip_toy"]  # its CLIP is the one that reads
    folder = ROOT / "figures" / "runs" / "dfgan_clip_toy"
    run = Run(folder)
    run.known = run.recipe.override(**{"encoders.clip": {"name": "toy-clip-resnet"}})
    more = weights(load_encoder("toy-clip-resnet"))
    assert parameters(run).frozen == counted["dfgan_toy"].frozen + more


def test_an_encoder_that_is_not_there_is_named():
    with pytest.raises(InputError, match="encoders/text"):
        parameters(Run(ROOT / "figures" / "runs" / "dfgan_cub100"))


def test_painting_takes_time_and_more_memory_than_its_weights(trained):
    sampler = load_sampler(trained("a"))
    alone, several = (painting_memory(sampler, ["a red bird."], count) for count in (1, 16))
    held = 4 * (weights(sampler.system.generator) + weights(sampler.encoder))
    assert held < alone < several and painting_memory(sampler, ["a red bird."], 16) == several
    pictures = 16 * 3 * 64 * 64 * 4
    assert several - held > 2 * pictures  # the pictures, and the map they are made of
    assert pictures_per_second(sampler, ["a red bird.", "a blue bird."], count=8) > 0
