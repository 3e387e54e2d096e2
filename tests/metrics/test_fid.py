from dataclasses import replace

import numpy as np
import psutil
import pytest
import scipy
import torch
from scipy import stats
from small import SIZE, Fixed, extractor, features, fill, kept, numbered, pictures, reference, told

from t2ilib.errors import InputError
from t2ilib.metrics.extractors import Custom
from t2ilib.metrics.fid import Fid
from t2ilib.metrics.frechet import frechet_distance
from t2ilib.metrics.moments import Reference


def gaussian(count, mean, covariance, seed):
    """Rows whose mean and covariance are these to the last digit."""
    rows = np.random.default_rng(seed).normal(size=(count, len(mean)))
    rows -= rows.mean(0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


def test_gaussians_of_known_distance():
    """Axis-aligned ones: the squared difference of means, and of standard deviations."""
    rows = gaussian(300, np.array([1.0, 2.0, 0.0]), np.diag([1.0, 4.0, 9.0]), 0)
    real = Reference(np.zeros(3), np.diag([4.0, 1.0, 9.0]), 1000, details=told("fixed"))
    assert fill(Fid(Fixed(rows), real), numbered(300)).compute().value == pytest.approx(5 + 1 + 1, rel=1e-5)


def test_agrees_with_scipy_and_torch_fidelity():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    shown, real = pictures(150), pictures(120, seed=1)
    found = fill(Fid(extractor(), reference(real)), shown)
    ours, theirs = features(shown).double().numpy(), features(real).double().numpy()
    root = scipy.linalg.sqrtm(np.cov(ours.T) @ np.cov(theirs.T)).real
    expected = ((ours.mean(0) - theirs.mean(0)) ** 2).sum() + np.trace(np.cov(ours.T) + np.cov(theirs.T) - 2 * root)
    assert found.compute().value == pytest.approx(expected, rel=1e-6)
    statistics = [fid_features_to_statistics(torch.from_numpy(rows)) for rows in (ours, theirs)]
    library = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert found.compute().value == pytest.approx(library, rel=1e-6)


def test_the_interval_is_the_jackknife_over_groups():
    shown, real = pictures(90), pictures(120, seed=1)
    found = fill(Fid(extractor(), reference(real), groups=9), shown).compute()
    rows, theirs = features(shown).numpy(), features(real).numpy()
    left = [frechet_distance(np.delete(rows, np.s_[group::9], axis=0), theirs) for group in range(9)]
    reach = stats.t.ppf(0.975, 8) * np.sqrt(8 / 9 * np.square(left - np.mean(left)).sum())
    assert found.interval == pytest.approx((max(found.value - reach, 0), found.value + reach), rel=1e-5)
    assert found.details["interval"] == "jackknife" and found.n == 90


def test_the_interval_covers_what_other_pictures_give():
    """Of 40 sets of 400 pictures from one source, most intervals hold the mean distance."""
    rng = np.random.default_rng(0)
    real = Reference(np.zeros(4), np.eye(4), 10_000, details=told("fixed"))
    found = []
    for _ in range(40):
        rows = rng.normal(size=(400, 4)) * 1.5 + 0.3
        found.append(fill(Fid(Fixed(rows), real), numbered(400), batch=400).compute())
    mean = np.mean([one.value for one in found])
    hits = sum(one.interval[0] <= mean <= one.interval[1] for one in found)
    assert hits >= 33, hits


@pytest.mark.parametrize("count", [SIZE + 1, 39])
def test_too_few_for_a_jackknife_say_so(count):
    found = fill(Fid(extractor(), reference(pictures(50, seed=1))), pictures(count)).compute()
    assert found.interval is None and "too few" in found.details["no_interval"]
    assert np.isfinite(found.value)


def test_too_few_pictures_are_named():
    with pytest.raises(InputError, match=f"pictures: {SIZE} are too few"):
        fill(Fid(extractor(), reference(pictures(50))), pictures(SIZE)).compute()
    with pytest.raises(InputError, match="too few"):
        Fid(extractor(), reference(pictures(50))).compute()
    with pytest.raises(InputError, match=f"reference: {SIZE} pictures for {SIZE} features"):
        Fid(extractor(), reference(pictures(SIZE)))


def test_references_of_another_extractor_are_refused():
    with pytest.raises(InputError, match="reference: 3 features against 6 of small"):
        Fid(extractor(), kept(np.random.default_rng(0).normal(size=(9, 3))))
    real = reference(pictures(50))
    real.details.update(extractor="small", resize="299 px")
    with pytest.raises(InputError, match="its resize is 299 px, not none"):
        Fid(extractor(), real)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda seen: seen.mean(dim=(2, 3)), r"\(4, 3\) features of 4 pictures; it says that it gives 6"),
        (lambda seen: torch.full((len(seen), SIZE), torch.nan), "features are NaN"),
    ],
)
def test_extractors_that_keep_no_promise_are_named(network, message):
    with pytest.raises(InputError, match=f"odd: .*{message}"):
        Fid(Custom(network, SIZE, "odd"), replace(reference(pictures(50)), details=told("odd"))).update(pictures(4))


def test_memory_does_not_grow():
    """24,000 pictures whose features take 24 MB, in batches of 32."""
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.normal(size=(48, 256))).float()
    network = Custom(lambda seen: seen.flatten(1) @ weights, 256, "wide")
    real = Reference(np.zeros(256), np.eye(256), 1000, details=told("wide"))
    metric, process, used = Fid(network, real), psutil.Process(), []
    for step in range(750):
        metric.update(torch.rand(32, 3, 4, 4))
        if step in (150, 749):
            used.append(process.memory_info().rss)
    assert used[1] - used[0] < 8 << 20
    assert metric.compute().n == 24_000


def test_results_say_how_they_came_about():
    found = fill(Fid(extractor(), reference(pictures(50, seed=1))), pictures(60)).compute()
    assert {
        "extractor": "small",
        "resize": "none",
        "groups": 40,
        "reference_count": 50,
    }.items() <= found.details.items()


def test_a_picture_that_comes_twice_is_refused():
    """In one process, and in two that were given one share."""
    real, shown = reference(pictures(50)), pictures(20)
    one, other = (fill(Fid(extractor(), real), shown, positions=range(20)) for _ in range(2))
    with pytest.raises(InputError, match="positions: 3 came twice"):
        one.update(shown[:1], positions=[3])
    with pytest.raises(InputError, match="positions: 0 came twice"):
        one.merge([other.state()])
    with pytest.raises(InputError, match="positions: 7 came twice"):
        Fid(extractor(), real).update(shown[:2], positions=[7, 7])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.full(6, np.nan)}, "NaN or infinite"),
        ({"covariance": np.full((6, 6), np.inf)}, "NaN or infinite"),
        ({"covariance": np.eye(5)}, "moments of shapes"),
        ({"details": {}}, "its extractor is not told, not small"),
        ({"details": told("other")}, "its extractor is other, not small"),
    ],
)
def test_a_damaged_reference_is_refused(changes, message):
    with pytest.raises(InputError, match=f"reference: .*{message}"):
        Fid(extractor(), replace(reference(pictures(50)), **changes))
