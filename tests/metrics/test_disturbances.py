"""Disturbed pictures: nothing at strength 0, what the docstring says at others, and the judge's features notice."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from small import pictures

from t2ilib.data import toy
from t2ilib.errors import InputError
from t2ilib.metrics.disturbances import blurred, noisy, swirled
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.judge import load_judge
from t2ilib.pictures import to_float

WAYS = (noisy, blurred, swirled)
NAMES = {noisy: "deviation", blurred: "radius", swirled: "turn"}


@pytest.mark.parametrize("disturb", WAYS)
def test_strength_0_changes_nothing(disturb):
    images = pictures(3, side=20)
    assert torch.allclose(disturb(images, 0.0), images, atol=1e-5)


@pytest.mark.parametrize("disturb", WAYS)
def test_pictures_keep_their_shape_and_range_and_the_given_ones_stay(disturb):
    images = pictures(3, side=20)
    before = images.clone()
    changed = disturb(images, 0.5)
    assert changed.shape == images.shape and changed.abs().max() <= 1 + 1e-6
    assert torch.equal(images, before) and not torch.allclose(changed, images, atol=1e-2)


def test_noise_has_its_deviation_and_depends_on_the_seed_alone():
    grey = torch.zeros(4, 3, 64, 64)
    noise = noisy(grey, 0.1, seed=3)
    assert abs(noise.std().item() / 2 - 0.1) < 0.001  # black to white is a range of 2
    assert torch.equal(noise, noisy(grey, 0.1, seed=3)) and not torch.equal(noise, noisy(grey, 0.1, seed=4))


@pytest.mark.parametrize("radius", [0.7, 1.5, 3.0])
def test_blur_is_scipys(radius):
    images = pictures(2, side=24)
    reach = math.ceil(3 * radius)
    wanted = gaussian_filter(
        images.double().numpy(), (0, 0, radius, radius), mode="nearest", radius=(0, 0, reach, reach)
    )
    assert np.allclose(blurred(images, radius).numpy(), wanted, atol=1e-5)


def test_a_swirl_turns_the_middle_and_leaves_the_corners():
    images = torch.zeros(1, 3, 65, 65)
    images[:, :, 32, 38] = 1.0  # six pixels to the right of the middle
    turned = swirled(images, math.pi / 2 / (1 - 12 / 65) ** 2)  # there by a quarter
    top = turned[0, 0].flatten().argmax().item()
    assert divmod(top, 65) in {(26, 32), (38, 32)}
    edge = pictures(1, side=40)
    far = torch.zeros(40, 40, dtype=torch.bool)
    far[:5, :5] = True
    assert torch.allclose(swirled(edge, 5.0)[0, :, far], edge[0, :, far], atol=1e-4)


@pytest.mark.parametrize("disturb", WAYS)
@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_impossible_strengths_are_named(disturb, strength):
    with pytest.raises(InputError, match=f"{NAMES[disturb]} = .*: must be a finite number, at least 0"):
        disturb(pictures(2), strength)


@pytest.mark.parametrize("disturb", WAYS)
def test_what_are_no_pictures_is_named(disturb):
    for wrong, told in ((torch.zeros(2, 1, 8, 8), r"float32 \(2, 1, 8, 8\)"), (pictures(2).byte(), "uint8")):
        with pytest.raises(InputError, match=f"pictures: {told}.*give floats"):
            disturb(wrong, 0.1)


def test_a_blur_wider_than_the_picture_is_refused():
    with pytest.raises(InputError, match=r"radius = 9\.0: its kernel is wider than the picture"):
        blurred(pictures(2, side=12), 9.0)


def test_the_toy_distance_grows_with_each_disturbance():
    rows = toy.sample_attributes(400, seed=1)
    birds = to_float(toy.render(rows, range(400), 64))
    judge = load_judge()
    others, half = judge.features(birds[:200]).numpy(), birds[200:]
    for disturb, strengths in {noisy: (0.0, 0.05, 0.2), blurred: (0.0, 1.0, 3.0), swirled: (0.0, 0.5, 2.0)}.items():
        found = [frechet_distance(judge.features(disturb(half, each)).numpy(), others) for each in strengths]
        assert found[0] < found[1] < found[2], disturb
