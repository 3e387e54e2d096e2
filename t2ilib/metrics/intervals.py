"""How far a number would move if other pictures had been drawn: 95 % intervals. They say nothing about another seed.

Shares of hits by Wilson (1927), which holds near 0 and 1, too; other means by the bootstrap (Efron 1979, "Bootstrap
Methods: Another Look at the Jackknife"); both as scipy does them. Frechet distances by the jackknife: drawn with
repetition, rows would repeat, and repeated rows alone raise the distance. It is the interval of the distance of so many
pictures, which lies above that of endlessly many. Rows count as independent, so an evaluation that shows a caption's
picture twice has narrower intervals than it should.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from t2ilib.errors import InputError

LEVEL = 0.95
GROUPS = 40  # of rows, each left out once by the jackknife
NORMAL = 1.96  # standard errors to either side that hold 95 % of a normal distribution


def interval(values: np.ndarray, resamples: int = 1000) -> list[float]:
    """Return the 95 % interval [low, high] of the mean of `values` (N,), by Wilson where all are 0 or 1.

    Raises `InputError` for no values and for values that are not finite.
    """
    values = _checked(values)
    if np.isin(values, (0, 1)).all():
        found = stats.binomtest(int(values.sum()), len(values)).proportion_ci(LEVEL, "wilson")
        return [float(found.low), float(found.high)]
    return bootstrapped(values, resamples)


def bootstrapped(values: np.ndarray, resamples: int = 1000) -> list[float]:
    """Return the 95 % interval [low, high] of the mean of `values` (N,) that are no hits; equal ones have no width.

    Raises `InputError` as `interval` does.
    """
    values = _checked(values)
    if len(values) < 2 or np.ptp(values) == 0:
        return [float(values.mean())] * 2
    chosen = {"confidence_level": LEVEL, "n_resamples": resamples, "method": "percentile", "batch": 100, "rng": 0}
    return [float(bound) for bound in stats.bootstrap((values,), np.mean, **chosen).confidence_interval]


def jackknifed(value: float, statistic: Callable[[np.ndarray], float], count: int, groups: int = GROUPS) -> list[float]:
    """Return [low, high], so many standard errors around `value` = statistic(all of `count` rows), never below 0.

    The error is that of the jackknife: `statistic` takes row numbers, and is asked again without each of so many
    groups of rows, drawn by chance.
    """
    groups = min(groups, count)
    parts = np.array_split(np.random.default_rng(0).permutation(count), groups)
    left = np.array([statistic(np.setdiff1d(np.arange(count), part)) for part in parts])
    error = reach(groups) * float(np.sqrt((groups - 1) * left.var()))
    return [max(value - error, 0.0), value + error]


def reach(groups: int) -> float:
    """Return how many standard errors, found from so many groups, hold 95 % to either side of an estimate.

    1.96 from 40 groups on; an error from fewer is itself uncertain: Student's t, 2.26 for 10 groups.
    """
    return NORMAL if groups >= GROUPS else float(stats.t.ppf((1 + LEVEL) / 2, groups - 1))


def _checked(values: np.ndarray) -> np.ndarray:
    """Return values (N,) in float64; `InputError` for none and for those that are not finite."""
    values = np.asarray(values, dtype=np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"values: {len(values)}, of which {np.isfinite(values).sum()} are finite; give finite ones")
    return values
