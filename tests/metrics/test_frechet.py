import numpy as np
import pytest

from t2ilib.errors import InputError
from t2ilib.metrics.frechet import frechet_distance, frechet_from_moments, moments


def gaussian(count, size, seed, scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, size)) @ rng.normal(size=(size, size)) * scale + shift


def naive(features_a, features_b):
    """Equation 6 word for word: the eigenvalues of the product, their complex roots."""
    mean_a, mean_b = features_a.mean(0), features_b.mean(0)
    a, b = np.cov(features_a.T), np.cov(features_b.T)
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).sum().real
    return ((mean_a - mean_b) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root


def test_closed_form_of_axis_aligned_gaussians():
    a, b = np.diag([1.0, 4.0, 9.0]), np.diag([4.0, 1.0, 9.0])
    assert frechet_from_moments(np.zeros(3), a, np.array([1.0, 2.0, 0.0]), b) == pytest.approx(5 + 1 + 1)


def test_agrees_with_the_naive_transcription():
    a, b = gaussian(400, 12, 0), gaussian(300, 12, 1, scale=2.0, shift=0.5)
    assert frechet_distance(a, b) == pytest.approx(naive(a, b), rel=1e-9)


def square_root_by_iteration(matrix):
    """Denman and Beavers 1976: Y -> (Y + Z^-1) / 2, Z -> (Z + Y^-1) / 2 from Y = matrix, Z = 1 ends at Y = its root."""
    root, inverse = matrix, np.eye(len(matrix))
    for _ in range(40):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return root


def test_agrees_with_the_root_of_the_product_as_the_paper_writes_it():
    a, b = gaussian(400, 12, 2), gaussian(300, 12, 3)
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    root = square_root_by_iteration(cov_a @ cov_b)
    assert np.allclose(root @ root, cov_a @ cov_b)
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


def test_identical_sets_have_no_distance_and_order_does_not_matter():
    a, b = gaussian(200, 8, 4), gaussian(200, 8, 5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * np.trace(np.cov(a.T)))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_shift_alone_is_the_squared_difference_of_means():
    a = gaussian(200, 8, 6)
    assert frechet_distance(a, a + 3) == pytest.approx(8 * 9, rel=1e-9)


def test_dead_features_do_no_harm():
    a, b = gaussian(200, 8, 7), gaussian(200, 8, 8)
    padded = [np.concatenate([features, np.zeros((200, 3))], axis=1) for features in (a, b)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_float32_input_is_summed_in_float64():
    a = (gaussian(500, 4, 9) + 1e3).astype(np.float32)
    assert frechet_distance(a, a.astype(np.float64)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((1, 4)), "too few"),
        (np.zeros((4, 4)), "too few"),
        (np.full((9, 4), np.nan), "NaN"),
        (np.zeros(9), "shape"),
        (np.zeros((9, 3)), "differ"),
    ],
)
def test_bad_input_is_named(features, message):
    with pytest.raises(InputError, match=message):
        frechet_distance(gaussian(20, 4, 0), features)
