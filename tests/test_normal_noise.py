"""Normal noise, plain and truncated: its bounds, its scale, its seeds, and where it is drawn."""

import math

import pytest
import torch

from t2ilib.errors import InputError
from t2ilib.models.dfgan import DFGAN, DFGANConfig
from t2ilib.task import normal_noise

SHAPE = (200, 100)


def seeded(truncation, seed=0, shape=SHAPE):
    return normal_noise(shape, torch.Generator().manual_seed(seed), truncation=truncation)


@pytest.mark.parametrize("truncation", [0.5, 0.88, 1.0, 2.0])
def test_nothing_lies_beyond_two_sigma_before_the_scale(truncation):
    noise = seeded(truncation)
    assert noise.shape == SHAPE and noise.dtype == torch.float32
    assert 1.99 * truncation < noise.abs().max() <= 2 * truncation


def test_it_is_a_normal_without_its_tails():
    """The variance of a standard normal within +-2 is 1 - 4 phi(2) / (2 Phi(2) - 1) = 0.774; clamping gives 0.921."""
    inside = math.erf(2 / math.sqrt(2))
    variance = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / inside
    noise = seeded(1.0)
    assert noise.var().item() == pytest.approx(variance, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert (noise.abs() > 1.9).float().mean() < 0.02  # no heap at the border
    assert (noise.abs() < 1).float().mean().item() == pytest.approx(math.erf(1 / math.sqrt(2)) / inside, abs=0.01)


def test_the_scale_multiplies_the_same_draws():
    torch.testing.assert_close(seeded(0.88), 0.88 * seeded(1.0))


@pytest.mark.parametrize("truncation", [None, 0.88])
def test_seeds_reproduce_and_leave_the_global_numbers_alone(truncation):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, second, other = seeded(truncation), seeded(truncation), seeded(truncation, seed=1)
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    drawn = [normal_noise(SHAPE, truncation=truncation) for _ in range(2)]
    torch.manual_seed(7)
    assert torch.equal(normal_noise(SHAPE, truncation=truncation), drawn[0]) and not torch.equal(*drawn)


def test_without_truncation_the_tails_are_there():
    noise = seeded(None)
    assert torch.equal(noise, torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))
    assert noise.abs().max() > 3


@pytest.mark.parametrize("truncation", [0, 0.0, -0.88, math.nan])
def test_impossible_truncations_are_named(truncation):
    with pytest.raises(InputError, match=f"truncation = {truncation}: must be above 0"):
        normal_noise(SHAPE, truncation=truncation)


@pytest.mark.parametrize("truncation", [None, 0.88])
def test_it_goes_to_the_device_and_is_drawn_where_its_random_numbers_live(truncation):
    generator = torch.Generator().manual_seed(0)
    moved = normal_noise(SHAPE, generator, "meta", truncation)
    assert moved.is_meta and moved.shape == SHAPE
    following = normal_noise(SHAPE, generator, "cpu", truncation)  # the first call drew from the generator, too
    assert not torch.equal(following, seeded(truncation))
    assert normal_noise(SHAPE, device="meta", truncation=truncation).is_meta
    assert normal_noise(SHAPE, truncation=truncation).device == torch.device("cpu")


def test_a_system_passes_everything_on():
    system = DFGAN(DFGANConfig.tiny())
    noise = system.noise(5, torch.Generator().manual_seed(3), "cpu", truncation=0.5)
    assert torch.equal(noise, seeded(0.5, seed=3, shape=(5, 8)))
    assert system.noise(5, device="meta", truncation=0.5).is_meta
    with pytest.raises(InputError, match="truncation = -1"):
        system.noise(5, truncation=-1)
