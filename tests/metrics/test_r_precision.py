import numpy as np
import pytest

from t2ilib.errors import InputError
from t2ilib.metrics.r_precision import clip_chance, clip_score, r_precision


@pytest.fixture
def features():
    return np.random.default_rng(0).normal(size=(300, 16))


def test_matching_features_are_always_found(features):
    result = r_precision(features * 3, features)  # the cosine ignores lengths
    assert result["mean"] == 1 and result["standard_error"] == 0 and result["chance"] == 0.01


def test_unrelated_features_reach_chance(features):
    images = np.random.default_rng(1).normal(size=(300, 16))
    means = [r_precision(images, features, candidates=10, seed=seed)["mean"] for seed in range(5)]
    assert 0.05 < np.mean(means) < 0.15


def test_naive_ranking_agrees_when_all_captions_are_candidates(features):
    images = features + 2 * np.random.default_rng(2).normal(size=features.shape)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, features)]
    expected = ((unit[0] @ unit[1].T).argmax(axis=1) == np.arange(300)).mean()
    assert 0 < expected < 1
    assert r_precision(images, features, candidates=300)["mean"] == pytest.approx(expected)


def test_the_same_caption_is_no_rival_when_grouped(features):
    repeated = np.repeat(features[:150], 2, axis=0)
    captions = [f"caption {row // 2}" for row in range(300)]
    assert r_precision(repeated, repeated, candidates=100, groups=captions)["mean"] == 1
    assert r_precision(repeated, repeated, candidates=300)["mean"] == 0  # its twin ties, and a tie is a miss


def test_the_seed_draws_the_rivals(features):
    images = features + 3 * np.random.default_rng(3).normal(size=features.shape)
    results = [r_precision(images, features, candidates=20, seed=seed)["mean"] for seed in (0, 0, 1, 2, 3)]
    assert results[0] == results[1] and len(set(results)) > 1


def test_standard_error_is_that_of_ten_folds(features):
    images = features + 3 * np.random.default_rng(4).normal(size=features.shape)
    result = r_precision(images, features, candidates=20)
    binomial = np.sqrt(result["mean"] * (1 - result["mean"]) / 300)
    assert 0.3 * binomial < result["standard_error"] < 2 * binomial


def test_too_few_captions_and_bad_values_are_named(features):
    with pytest.raises(InputError, match="only 98 rivals for 100"):
        r_precision(features[:99], features[:99])
    with pytest.raises(InputError, match="image_features"):
        r_precision(np.full_like(features, np.nan), features)
    with pytest.raises(InputError, match="differ"):
        r_precision(features, features[:-1])


def test_clip_score_is_a_hundred_times_the_clipped_cosine():
    images, texts = np.array([[2.0, 0], [1, 1], [-1, 0]]), np.array([[3.0, 0], [1, 0], [1, 0]])
    assert clip_score(images, texts) == pytest.approx(100 * (1 + np.sqrt(0.5) + 0) / 3)


def test_the_chance_of_a_clip_score_is_that_beside_the_next_other_caption():
    images, texts = np.eye(3), np.array([[1.0, 0, 0], [3, 4, 0], [0.6, 0, 0.8]])
    assert clip_chance(images, texts, ["a", "b", "c"]) == pytest.approx(100 * (0.6 + 0 + 0) / 3)
    assert clip_chance(images, texts[[0, 0, 2]], ["a", "a", "c"]) == pytest.approx(100 * (0.6 + 0 + 0) / 3)
    assert clip_chance(images[[0, 1, 0]], texts, ["a", "b", "c"]) == pytest.approx(100 * (0.6 + 0 + 1) / 3)
    assert clip_chance(images, texts, ["a"] * 3) is None


def test_the_next_other_caption_may_be_several_rows_behind(features):
    images, texts = features[:5], features[5:10]
    expected = clip_score(images, texts[[3, 3, 3, 4, 0]])
    assert clip_chance(images, texts, ["a", "a", "a", "b", "c"]) == pytest.approx(expected)


def test_the_chance_of_a_perfect_painter_is_what_captions_have_in_common(features):
    shifted = features + 1  # all captions point the same way a little
    unit = shifted / np.linalg.norm(shifted, axis=1, keepdims=True)
    every = 100 * (unit @ unit.T).clip(min=0)
    expected = (every.sum() - np.trace(every)) / (300 * 299)
    assert clip_chance(shifted, shifted, range(300)) == pytest.approx(expected, rel=0.1)
    assert clip_score(shifted, shifted) == pytest.approx(100) and expected < 60
