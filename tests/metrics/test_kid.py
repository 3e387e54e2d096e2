import numpy as np
import pytest
import torch
from small import Fixed, extractor, features, fill, kept, numbered, pictures, reference, told

from t2ilib.errors import InputError
from t2ilib.metrics.kid import PARTS, Kid, jackknife_error
from t2ilib.metrics.moments import Reference


def slowly(fakes, real):
    """The unbiased estimate, pair by pair."""
    size = fakes.shape[1]

    def pairs(left, right, same):
        found = [
            (float(np.dot(x, y)) / size + 1) ** 3
            for i, x in enumerate(left)
            for j, y in enumerate(right)
            if not (same and i == j)
        ]
        return np.mean(found)

    return pairs(fakes, fakes, True) + pairs(real, real, True) - 2 * pairs(fakes, real, False)


def test_one_subset_of_all_is_the_double_loop():
    shown, real = pictures(40), pictures(40, seed=1)
    found = fill(Kid(extractor(), reference(real), 40, 1), shown).compute()
    expected = slowly(features(shown).double().numpy(), features(real).double().numpy())
    assert found.value == pytest.approx(expected, rel=1e-9)


@pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features")
def test_agrees_with_torchmetrics_subset_by_subset():
    """torchmetrics draws subsets of its own; over many of them the means agree."""
    from torchmetrics.image.kid import KernelInceptionDistance

    rng = np.random.default_rng(0)
    real, shown = rng.normal(size=(300, 5)), rng.normal(size=(300, 5)) + 0.4
    ours = fill(Kid(Fixed(shown), kept(real), 100, 400), numbered(300)).compute()

    class Rows(torch.nn.Module):
        num_features = 5

        def forward(self, rows):
            return rows

    theirs = KernelInceptionDistance(feature=Rows(), subsets=400, subset_size=100)
    theirs.update(torch.from_numpy(real).float(), real=True)
    theirs.update(torch.from_numpy(shown).float(), real=False)
    mean, spread = (float(number) for number in theirs.compute())
    assert ours.value == pytest.approx(mean, abs=4 * spread / np.sqrt(400))
    assert ours.details["std_over_subsets"] == pytest.approx(spread, rel=0.2)


def test_the_estimate_is_near_zero_for_one_source_and_can_be_negative():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(30):
        real, shown = rng.normal(size=(2, 80, 4))
        found.append(fill(Kid(Fixed(shown), kept(real), 80, 1), numbered(80), batch=80).compute().value)
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(30)


def test_the_jackknife_leaves_out_each_group_once():
    rng = np.random.default_rng(1)
    fakes, real = rng.normal(size=(47, 4)), rng.normal(size=(31, 4)) + 1
    left = [slowly(np.delete(fakes, np.s_[group::PARTS], axis=0), real) for group in range(PARTS)]
    expected = np.sqrt((PARTS - 1) / PARTS * np.square(left - np.mean(left)).sum())
    assert jackknife_error(torch.from_numpy(fakes), torch.from_numpy(real)) == pytest.approx(expected, rel=1e-8)


def test_the_interval_is_as_wide_as_sets_of_pictures_differ():
    rng = np.random.default_rng(2)
    real = kept(rng.normal(size=(200, 4)))
    found = []
    for _ in range(40):
        shown = rng.normal(size=(200, 4)) * 1.3
        found.append(fill(Kid(Fixed(shown), real, 200, 1), numbered(200), batch=200).compute())
    reach = np.mean([(one.interval[1] - one.interval[0]) / 2 for one in found])
    assert reach == pytest.approx(1.96 * np.std([one.value for one in found]), rel=0.35)


def test_few_features_stay_and_the_seed_chooses_them():
    shown, real = pictures(90), reference(pictures(60, seed=1))
    found = [fill(Kid(extractor(), real, 20, 5, most=30, seed=seed), shown).compute() for seed in (0, 0, 1)]
    assert found[0] == found[1] and found[0].value != found[2].value
    assert found[0].n == 90 and found[0].details["kept"] == 30
    assert found[0].interval is None and "too few" in found[0].details["no_interval"]


def test_too_few_pictures_are_named():
    with pytest.raises(InputError, match="pictures: 9 are too few for subsets of 10"):
        fill(Kid(extractor(), reference(pictures(50)), 10), pictures(9)).compute()
    with pytest.raises(InputError, match="reference: 50 are too few for subsets of 60"):
        fill(Kid(extractor(), reference(pictures(50)), 60), pictures(70)).compute()
    with pytest.raises(InputError, match="subsets: 0 of 10"):
        Kid(extractor(), reference(pictures(50)), 10, 0)


def test_a_reference_without_features_is_named():
    with pytest.raises(InputError, match="keeps moments, no feature vectors"):
        Kid(extractor(), Reference(np.zeros(6), np.eye(6), 100, details=told("small")))
