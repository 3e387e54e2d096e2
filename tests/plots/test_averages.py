"""Systems over what they have seen: seeds thin, their mean thick, what stands beside them dashed."""

import pytest

from t2ilib.errors import InputError
from t2ilib.plots import COLOURS, averages

ALONG = {"thousands": ("images", 1e3), "minutes": ("seconds", 60)}


def records(*values, step=1000, pace=60.0):
    return [{"images": step * k, "seconds": pace * k, "score": value} for k, value in enumerate(values, 1)]


def test_the_mean_is_of_the_records_that_all_seeds_have():
    runs = {"two seeds": [records(1, 2, 3), records(3, 4, pace=120.0)], "one seed": [records(5)]}
    figure = averages(runs, {"score": "score"}, ALONG)
    seen, spent = figure.axes
    assert [axes.get_xlabel() for axes in figure.axes] == ["thousands", "minutes"]
    assert [line.get_xydata().tolist() for line in seen.lines[:3]] == [
        [[1, 1], [2, 2], [3, 3]],
        [[1, 3], [2, 4]],
        [[1, 2], [2, 3]],
    ]
    assert spent.lines[2].get_xydata().tolist() == [[1.5, 2], [3, 3]]  # by pictures seen, wherever the minutes are
    assert seen.lines[2].get_linewidth() > 2 * seen.lines[0].get_linewidth()
    alone = [line for line in seen.lines if line.get_color() == COLOURS[1]]
    assert [line.get_xydata().tolist() for line in alone] == [[[1, 5]], [[1, 5]]]  # its mean, and the mark on it
    assert seen.get_ylim() == spent.get_ylim() and seen.get_xlim()[0] == 0


def test_colours_that_come_again_have_another_mark():
    names = [f"system {number}" for number in range(len(COLOURS) + 1)]
    figure = averages({name: [records(1, 2)] for name in names}, {"score": "score"}, ALONG)
    shown = [(line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()]
    assert len(set(shown)) == len(names) and shown[0][0] == shown[-1][0]


def test_what_stands_beside_is_drawn_where_it_has_a_value():
    runs = {"a": [[{**each, "other": 1.0} for each in records(1, 2)]]}
    terms = {"first": "score", "second": "other"}
    figure = averages(runs, terms, {"thousands": ("images", 1e3)}, {"one colour": {"first": 1.5}})
    dashed = [[line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes]
    assert dashed == [[1.5], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"runs": {}}, "averages: runs, terms or axes are missing"),
        ({"terms": {}}, "averages: runs, terms or axes are missing"),
        ({"along": {}}, "averages: runs, terms or axes are missing"),
        ({"terms": {"beauty": "grace"}}, "beauty: grace is in no record"),
    ],
)
def test_nothing_to_draw_is_named(change, message):
    given = {"runs": {"a": [records(1)]}, "terms": {"score": "score"}, "along": ALONG} | change
    with pytest.raises(InputError, match=message):
        averages(**given)
