"""Features and pictures that nothing can be measured of: one error that says why, and no number."""

import numpy as np
import pytest
import torch

from t2ilib.errors import InputError
from t2ilib.metrics.attributes import accuracy_of
from t2ilib.metrics.diversity import diversity, mean_pairwise_distance
from t2ilib.metrics.drawing import EvaluationSettings
from t2ilib.metrics.frechet import frechet_distance, moments
from t2ilib.metrics.r_precision import clip_score, r_precision
from t2ilib.metrics.ruler import Look

ROWS = np.random.default_rng(0).normal(size=(12, 4))
NAN = np.where(np.arange(48).reshape(12, 4) == 7, np.nan, ROWS)


@pytest.mark.parametrize(
    "measured",
    [
        lambda: clip_score(ROWS[:0], ROWS[:0]),
        lambda: clip_score(ROWS, ROWS[:1]),
        lambda: clip_score(ROWS[0], ROWS[0]),
        lambda: clip_score(NAN, ROWS),
        lambda: r_precision(ROWS[:0], ROWS[:0], 2),
        lambda: r_precision(ROWS, ROWS, 1),
        lambda: r_precision(ROWS, ROWS, 0),
        lambda: r_precision(ROWS, NAN, 2),
        lambda: r_precision(ROWS, ROWS, 2, groups=["a"]),
        lambda: r_precision(ROWS[:1], ROWS[:1], 2),
        lambda: r_precision(ROWS, ROWS, 2, groups=["same"] * 12),
        lambda: frechet_distance(ROWS[:1], ROWS),
        lambda: frechet_distance(NAN, ROWS),
        lambda: moments(ROWS[0]),
        lambda: diversity(ROWS[None, :1]),
        lambda: diversity(ROWS[None][:0]),
        lambda: diversity(NAN[None]),
        lambda: diversity(ROWS[None], np.ones((5, 4))),
        lambda: diversity(ROWS[None], ROWS[:1]),
        lambda: mean_pairwise_distance(ROWS[0]),
        lambda: accuracy_of(torch.zeros(2, 1, dtype=torch.int64), [{"a": "x"}], {"a": ("x",)}),
    ],
)
def test_what_has_no_meaning_has_no_number(measured):
    with pytest.raises(InputError) as caught:
        measured()
    assert "\n" not in str(caught.value)


def test_equal_pictures_have_numbers_where_these_mean_something():
    alike = np.ones((12, 4))
    assert diversity(alike[None]) == 0 and frechet_distance(alike, alike) == 0
    assert r_precision(alike, alike, 3)["mean"] == 0  # a tie is a miss
    assert r_precision(np.zeros((3, 4)), np.zeros((3, 4)), 2)["mean"] == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pictures_that_are_no_numbers_are_not_judged(judge, value):
    pictures = torch.zeros(2, 3, 64, 64)
    pictures[1, 0, 0, 0] = value
    for look in (lambda: judge.read(pictures), lambda: Look(judge, None, [pictures])):
        with pytest.raises(InputError, match="NaN or infinite"):
            look()


@pytest.mark.parametrize(
    "settings",
    [
        {"n": 0},
        {"n": 10**9},
        {"seed": -1},
        {"seed": 2**32},
        {"candidates": 1},
        {"per_caption": 1},
        {"diversity_captions": 0},
        {"batch_size": -1},
        {"truncation": 0.0},
        {"truncation": -0.5},
        {"truncation": float("nan")},
        {"truncation": float("inf")},
    ],
)
def test_evaluations_of_nothing_are_refused(settings):
    with pytest.raises(InputError, match=rf"evaluation\.{next(iter(settings))} = "):
        EvaluationSettings(**settings)
