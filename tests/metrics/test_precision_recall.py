import numpy as np
import pytest
import torch
from scipy import stats
from small import Fixed, extractor, features, fill, kept, numbered, pictures, reference

from t2ilib.errors import InputError
from t2ilib.metrics.precision_recall import BLOCK, Precision, Recall, covered


def slowly(points, centres, k):
    """Which points lie in some centre's ball, pair by pair."""
    radii = [sorted(np.linalg.norm(one - other) for other in centres)[k] for one in centres]
    return [any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True)) for p in points]


@pytest.mark.parametrize("k", [1, 3])
def test_agrees_with_the_double_loop(k):
    shown, real = pictures(60), pictures(50, seed=1) * 0.6
    ours, theirs = features(shown).double().numpy(), features(real).double().numpy()
    found = [fill(metric(extractor(), reference(real), k), shown).compute() for metric in (Precision, Recall)]
    expected = np.mean(slowly(ours, theirs, k)), np.mean(slowly(theirs, ours, k))
    assert [one.value for one in found] == pytest.approx(expected)
    assert 0 < expected[0] < 1 and 0 < expected[1] < 1


def test_agrees_with_torch_fidelity_over_several_blocks():
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    rng = np.random.default_rng(0)
    shown, real = rng.normal(size=(BLOCK * 2 + 30, 8)), rng.normal(size=(BLOCK + 70, 8)) * 1.3
    expected = calculate_precision_recall_full(*(torch.from_numpy(rows).float().double() for rows in (shown, real)))
    found = [
        fill(metric(Fixed(shown), kept(real)), numbered(len(shown)), 100).compute().value
        for metric in (Precision, Recall)
    ]
    assert found == pytest.approx(expected)


def test_what_they_tell_apart():
    """One mode of two: all is precise, half is recalled; both modes and much else: the other way round."""
    rng = np.random.default_rng(1)
    modes = np.concatenate([rng.normal(size=(100, 3)), rng.normal(size=(100, 3)) + 50])
    narrow = rng.normal(size=(200, 3)) * 0.5
    wide = np.concatenate([modes, rng.normal(size=(200, 3)) + 500])

    def both(rows):
        return [
            fill(metric(Fixed(rows), kept(modes)), numbered(len(rows))).compute().value
            for metric in (Precision, Recall)
        ]

    assert both(narrow)[0] > 0.9 and both(narrow)[1] < 0.5
    assert both(wide) == [0.5, 1.0]


def test_a_set_lies_in_its_own_manifold():
    rows = torch.from_numpy(np.random.default_rng(2).normal(size=(30, 4)))
    assert covered(rows, rows, 1).all()
    assert not covered(rows + 1e3, rows, 1).any()


def test_precision_has_wilsons_interval_and_recall_none():
    shown, real = pictures(60), reference(pictures(50, seed=1))
    precision, recall = (fill(metric(extractor(), real), shown).compute() for metric in (Precision, Recall))
    hits = round(precision.value * 60)
    wilson = stats.binomtest(hits, 60).proportion_ci(0.95, "wilson")
    assert precision.interval == pytest.approx((wilson.low, wilson.high))
    assert recall.interval is None and recall.details["no_interval"]
    assert precision.details["k"] == 3 and precision.details["reference_kept"] == 50


def test_too_few_pictures_are_named():
    with pytest.raises(InputError, match=r"pictures: 3 have no 3\. nearest neighbour"):
        fill(Recall(extractor(), reference(pictures(50))), pictures(3)).compute()
    with pytest.raises(InputError, match=r"reference: 3 have no 3\. nearest neighbour"):
        fill(Precision(extractor(), reference(pictures(3))), pictures(9)).compute()
    with pytest.raises(InputError, match="k: 0"):
        Precision(extractor(), reference(pictures(50)), 0)
