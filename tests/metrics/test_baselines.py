"""Birds without a network: what they are told they show, and the renderer's own pictures say so."""

import numpy as np
import pytest

from t2ilib.data.toy import ATTRIBUTES, COLOURS, HELD_OUT, bird, render, sample_attributes, toy_birds
from t2ilib.metrics.attributes import attribute_accuracy
from t2ilib.metrics.baselines import birds_like, faithful_birds, one_coloured_birds, rendered
from t2ilib.pictures import to_float

NAMES = list(ATTRIBUTES)
CAPTIONS = [
    "a small red bird with black wings and a white belly, perched on a rock in the woods.",
    "this bird has barred wings and a long yellow bill.",
    "something.",
]
CROWD = sample_attributes(20_000, 9)


def values(row) -> dict[str, str]:
    return {name: ATTRIBUTES[name][value] for name, value in zip(NAMES, row, strict=True)}


def test_faithful_birds_show_all_that_is_said_and_vary_in_the_rest():
    rows = faithful_birds(CAPTIONS[:1] * 200, CROWD, seed=1)
    told = {"body": "red", "wing": "black", "belly": "white", "size": "small", "perch": "rock", "background": "forest"}
    assert all(told.items() <= values(row).items() for row in rows)
    free = [NAMES.index(name) for name in NAMES if name not in told]
    assert all(len(np.unique(rows[:, column])) == len(ATTRIBUTES[NAMES[column]]) for column in free)
    assert not np.array_equal(rows, faithful_birds(CAPTIONS[:1] * 200, CROWD, seed=2))
    assert values(faithful_birds(CAPTIONS, CROWD)[1]).items() >= {"wing_pattern": "barred", "bill": "yellow"}.items()


@pytest.mark.parametrize("held_out", [True, False])
def test_what_faithful_birds_are_not_told_is_as_in_the_crowd(held_out):
    """Colours of a bird depend on each other: a red bird's belly is often red, and not every species is there."""
    crowd = sample_attributes(20_000, 3, held_out)
    red = crowd[crowd[:, 0] == COLOURS.index("red")]
    rows = faithful_birds(["a red bird."] * 3000, crowd)
    assert set(rows[:, 1].tolist()) <= set(red[:, 1].tolist())  # wings that red birds there have
    for column in (1, 2, 3):
        share, wanted = (np.bincount(birds[:, column], minlength=8) / len(birds) for birds in (rows, red))
        assert np.abs(share - wanted).max() < 0.04
    nobody = faithful_birds(["a red bird with red wings."] * 50, crowd[crowd[:, 0] != crowd[:, 1]])
    assert (nobody[:, :2] == COLOURS.index("red")).all()


def test_one_coloured_birds_take_the_body_s_colour_and_ignore_the_small_things():
    rows = one_coloured_birds(CAPTIONS[:1] * 200, seed=1)
    assert all({"body": "red", "size": "small", "perch": "rock"}.items() <= values(row).items() for row in rows)
    plumage = rows[:, [NAMES.index(name) for name in ("body", "wing", "belly", "crown")]]
    assert (plumage == plumage[:, :1]).all()
    rows = one_coloured_birds(CAPTIONS[1:2] * 200)
    assert all(values(row)["background"] == "forest" for row in one_coloured_birds(CAPTIONS[:1] * 20))
    for name in ("wing_pattern", "bill", "body"):  # said or not, they are drawn
        assert len(np.unique(rows[:, NAMES.index(name)])) == len(ATTRIBUTES[name])
    assert not np.array_equal(one_coloured_birds(CAPTIONS, 0), one_coloured_birds(CAPTIONS, 1))


def test_the_measured_baseline_is_what_their_pictures_show(judge):
    """Against the renderer: a bird of the right two colours is a composition, a bird in one colour is none."""
    both = ["a red bird with black wings.", "a red bird with red wings.", "a white bird with blue wings."] * 20
    right = attribute_accuracy(judge, to_float(rendered(faithful_birds(both, CROWD), 64)), both)
    plain = attribute_accuracy(judge, to_float(rendered(one_coloured_birds(both), 64)), both)
    assert right["mentioned"] > 0.97 and right["composition"]["accuracy"] > 0.95
    assert plain["composition"]["accuracy"] == pytest.approx(1 / 3, abs=0.05)  # the red one with red wings
    assert plain["attributes"]["body"]["accuracy"] > 0.97
    assert plain["attributes"]["wing"]["accuracy"] < 0.5
    one = bird({"body": "red", "wing": "black"})[None]
    assert attribute_accuracy(judge, to_float(render(one, [4], 64)), both[:1])["composition"]["accuracy"] == 1


def test_other_birds_are_of_the_same_kind_of_species_but_not_the_same():
    birds = toy_birds(train=60, validation=1, test=20, size=32)
    held_out = {tuple(COLOURS.index(colour) for colour in pair) for pair in HELD_OUT}
    for split, share in (("train", 0), ("test", 1), (None, 20 / 81)):
        own = birds.split(split) if split else birds
        rows = birds_like(own, 50)
        assert rows.shape == (50, own.attributes.shape[1])
        assert sum(tuple(row[:2]) in held_out for row in rows.tolist()) == round(50 * share)
        assert not np.array_equal(rows[:20], own.attributes[:20])
    rows = birds_like(birds, 60)
    pictures = rendered(rows, 32)
    assert pictures.shape == (60, 32, 32, 3) and pictures.dtype == np.uint8
    assert not (pictures == birds.images[:60]).all((1, 2, 3)).any()
    assert np.array_equal(pictures, rendered(birds_like(birds, 60), 32))
    assert np.array_equal(pictures[20:], rendered(rows[20:], 32, first=20))
    assert not np.array_equal(pictures, rendered(rows, 32, seed=1))
    assert not np.array_equal(rows, birds_like(birds, 60, seed=1))
