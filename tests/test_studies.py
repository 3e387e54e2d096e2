"""Studies: a plain system beside others, seed by seed, of one budget."""

import pytest
import test_comparison

from t2ilib import studies
from t2ilib.errors import InputError

run = test_comparison.run
MEASURES = {"attributes": ("attribute_accuracy", 3), "toy FD": ("toy_fd", 1)}


@pytest.fixture
def folder(run, tmp_path):
    """Make a study of two seeds: `better` lies above `plain` in both, `alike` overlaps."""
    for system, values in {"plain": (0.3, 0.4), "better": (0.5, 0.6), "all_alike": (0.35, 0.45)}.items():
        for seed, value in enumerate(values):
            run(f"{system}_{seed}", value, seed=seed)
    return tmp_path


def test_runs_are_gathered_by_system(folder):
    study = studies.open_study(folder)
    assert {name: len(runs) for name, runs in study.items()} == {"plain": 2, "better": 2, "all_alike": 2}


def test_another_budget_does_not_belong_to_it(folder, run):
    run("plain_2", images=641, seed=2)
    with pytest.raises(InputError, match="do not compare"):
        studies.open_study(folder)


def test_a_star_stands_where_no_seeds_overlap(folder):
    lines = studies.told(studies.open_study(folder), MEASURES, "plain", ["one_colour"]).splitlines()
    assert [line.split()[0] for line in lines] == ["attributes", "plain", "better", "all", "one"]
    assert "0.350 ( 0.300 to  0.400)" in lines[1]
    assert "0.550 ( 0.500 to  0.600) *" in lines[2]
    assert "55.0 (  50.0 to   60.0) *" in lines[2]
    assert [line.count("*") for line in lines] == [0, 0, 2, 0, 0]
    assert lines[4].split() == ["one", "colour", "0.600", "60.0"]
