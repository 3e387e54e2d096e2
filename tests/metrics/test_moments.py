import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2ilib.errors import InputError
from t2ilib.metrics.moments import Moments, joined


def rows(count, size=4, seed=0, offset=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) + offset


@given(st.lists(st.integers(0, 40), min_size=1, max_size=9).filter(lambda cuts: sum(cuts) >= 2), st.booleans())
def test_parts_give_the_moments_of_the_whole(counts, separately):
    table = rows(sum(counts))
    parts = np.split(table, np.cumsum(counts)[:-1])
    if separately:
        each = [Moments(4) for _ in parts]
        for one, part in zip(each, parts, strict=True):
            one.add(part)
        whole = joined(each, 4)
    else:
        whole = Moments(4)
        for part in parts:
            whole.add(part)
    assert whole.count == len(table)
    assert np.allclose(whole.mean, table.mean(0), rtol=1e-12, atol=1e-12)
    assert np.allclose(whole.covariance(), np.cov(table.T), rtol=1e-10, atol=1e-12)


def test_features_far_from_zero_lose_no_digits():
    """Sums of squares would: 1e8 squared leaves no digit for a variance of 1."""
    table, whole = rows(1000), Moments(4)
    for part in np.split(table + 1e8, 10):
        whole.add(part)
    assert np.allclose(whole.covariance(), np.cov(table.T), rtol=1e-6)


def test_joining_leaves_the_parts_alone():
    part = Moments(4)
    part.add(rows(10))
    before = part.mean.copy(), part.scatter.copy()
    whole = joined([part, part], 4)
    assert whole.count == 20 and part.count == 10
    assert all(np.array_equal(*pair) for pair in zip(before, (part.mean, part.scatter), strict=True))


def test_one_row_has_no_covariance():
    one = Moments(4)
    one.add(rows(1))
    with pytest.raises(InputError, match="no covariance"):
        one.covariance()
