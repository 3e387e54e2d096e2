"""Bootstrap intervals: they cover as often as they say, and do not move."""

import numpy as np
import pytest

from t2ilib.errors import InputError
from t2ilib.metrics.frechet import frechet_from_moments, moments
from t2ilib.metrics.intervals import bootstrapped, interval, jackknifed


@pytest.mark.parametrize("share", [0.016, 0.3, 0.984])
def test_an_interval_of_a_share_covers_nineteen_times_of_twenty_near_the_ends_too(share):
    rng = np.random.default_rng(3)
    found = [interval(rng.random(100) < share) for _ in range(400)]
    assert 0.92 <= np.mean([low <= share <= high for low, high in found]) <= 0.99


def test_an_interval_of_a_mean_covers_nineteen_times_of_twenty():
    rng = np.random.default_rng(4)
    found = [interval(rng.gamma(4.0, 0.25, 120), resamples=200) for _ in range(200)]
    assert 0.9 <= np.mean([low <= 1 <= high for low, high in found]) <= 0.99


def test_all_right_is_no_certainty_and_nothing_is_no_number():
    assert interval(np.ones(5)) == pytest.approx([0.566, 1], abs=1e-3)  # Wilson: n / (n + 1.96^2)
    assert interval(np.zeros(20)) == pytest.approx([0, 0.161], abs=1e-3)
    for values in ([], [0.5, np.nan], [np.inf, 1.0]):
        with pytest.raises(InputError, match="give finite ones"):
            interval(np.array(values))


def test_it_is_as_wide_as_the_standard_error_says_and_the_same_again():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = interval(values)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(400), rel=0.05)
    assert interval(values) == [low, high] and low < values.mean() < high


def test_distances_of_nothing_and_of_one_are_no_hits():
    assert bootstrapped(np.zeros(20)) == [0, 0] and bootstrapped(np.ones(3)) == [1, 1]
    values = np.random.default_rng(2).gamma(4.0, 0.25, 60)
    expected = np.quantile(np.random.default_rng(7).choice(values, (4000, 60)).mean(axis=1), [0.025, 0.975])
    assert bootstrapped(values) == pytest.approx(expected.tolist(), abs=0.02) == interval(values)
    with pytest.raises(InputError, match="give finite ones"):
        bootstrapped(np.array([np.nan]))


@pytest.mark.parametrize("values", [[0.25], [0.5, 0.5, 0.5]])
def test_where_nothing_varies_there_is_no_width(values):
    assert interval(np.array(values)) == [values[0], values[0]]


def test_the_jackknife_of_a_mean_is_its_standard_error():
    rows = np.random.default_rng(1).normal(size=400)
    value = float(rows.mean()) + 5
    low, high = jackknifed(value, lambda chosen: rows[chosen].mean(), 400)
    assert (low + high) / 2 == pytest.approx(value)
    assert high - value == pytest.approx(1.96 * rows.std() / np.sqrt(400), rel=0.3)
    assert jackknifed(0.01, lambda chosen: rows[chosen].mean(), 400)[0] == 0.0  # no distance is negative


def test_the_interval_of_a_frechet_distance_is_as_wide_as_new_samples_differ():
    size, count, rng = 24, 300, np.random.default_rng(5)
    reference = moments(rng.normal(size=(4000, size)))

    def distance(rows):
        return frechet_from_moments(*moments(rows), *reference)

    samples = [rng.normal(size=(count, size)) * 1.15 for _ in range(100)]
    spread = np.std([distance(sample) for sample in samples])
    widths = [np.ptp(jackknifed(distance(s), lambda rows, s=s: distance(s[rows]), count)) for s in samples[:12]]
    assert 0.9 <= np.mean(widths) / (2 * 1.96) / spread <= 1.6  # the jackknife errs on the wide side
