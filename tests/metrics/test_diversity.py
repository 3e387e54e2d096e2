import numpy as np
import pytest

from t2ilib.errors import InputError
from t2ilib.metrics.diversity import diversities, diversity, mean_pairwise_distance


def test_mean_pairwise_distance_of_a_triangle():
    assert mean_pairwise_distance(np.array([[0.0, 0], [3, 0], [0, 4]])) == pytest.approx((3 + 4 + 5) / 3)


def test_captions_are_averaged_and_never_compared_with_each_other():
    close = np.array([[[0.0, 0], [0, 1]], [[100, 0], [100, 3]]])
    assert diversity(close) == pytest.approx(2)


def test_each_caption_has_its_own_and_they_have_one_unit():
    two = np.array([[[0.0, 0], [0, 1]], [[100, 0], [100, 3]]])
    assert diversities(two).tolist() == [1, 3]
    assert diversities(two, np.array([[0.0, 0], [0, 4]])).tolist() == [0.25, 0.75]


def test_a_generator_that_ignores_noise_has_none():
    pictures = np.repeat(np.random.default_rng(0).normal(size=(5, 1, 7)), 4, axis=1)
    assert diversity(pictures) == 0


def test_relative_to_real_pictures():
    rng = np.random.default_rng(1)
    real = rng.normal(size=(400, 9))
    assert diversity(rng.normal(size=(50, 8, 9)), real) == pytest.approx(1, abs=0.05)
    assert diversity(rng.normal(size=(50, 8, 9)) / 2, real) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("features", [np.zeros((3, 1, 4)), np.zeros((3, 4)), np.full((2, 2, 2), np.inf)])
def test_bad_input_is_named(features):
    with pytest.raises(InputError, match="features"):
        diversity(features)
