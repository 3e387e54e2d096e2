import numpy as np
import pytest
import torch
from small import Fixed, extractor, fill, network, numbered, pictures

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Custom
from t2ilib.metrics.inception_score import InceptionScore, score


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_agrees_with_torch_fidelity(splits):
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = torch.randn(67, 5, generator=torch.Generator().manual_seed(0)) * 3
    found = fill(InceptionScore(Fixed(logits), splits), numbered(67)).compute()
    theirs = isc_features_to_metric(logits, splits, shuffle=False)
    assert found.value == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert found.details["std_over_splits"] == pytest.approx(theirs["inception_score_std"], abs=1e-5)
    assert found.n == 67


def test_its_two_ends():
    assert score(torch.full((8, 4), 0.25)) == pytest.approx(1)
    assert score(torch.eye(4).repeat(3, 1).double()) == pytest.approx(4)
    assert score(torch.eye(4)[[2] * 6].double()) == pytest.approx(1), "sure, and always of the same"


def test_the_interval_is_students_over_splits():
    found = fill(InceptionScore(extractor(), 5), pictures(50)).compute()
    rows = network(torch.round((pictures(50) + 1) * 127.5) / 127.5 - 1).probabilities
    scores = [score(part.double()) for part in rows.split(10)]
    reach = 2.7764 * np.std(scores, ddof=1) / np.sqrt(5)  # the table's t for 4 degrees of freedom
    assert found.interval == pytest.approx((np.mean(scores) - reach, np.mean(scores) + reach), rel=1e-5)


def test_one_split_and_equal_splits():
    assert fill(InceptionScore(extractor(), 1), pictures(9)).compute().interval is None
    found = fill(InceptionScore(Fixed(torch.zeros(20, 3)), 4), numbered(20)).compute()
    assert found.interval == pytest.approx((1, 1)) and found.value == pytest.approx(1)


def test_what_has_no_score_is_named():
    with pytest.raises(InputError, match="names no classes"):
        InceptionScore(Custom(lambda seen: seen.mean(dim=(2, 3)), 3, "plain")).update(pictures(4))
    with pytest.raises(InputError, match="pictures: 9 are too few for 10 splits"):
        fill(InceptionScore(extractor()), pictures(9)).compute()
    with pytest.raises(InputError, match="splits: 0"):
        InceptionScore(extractor(), 0)
