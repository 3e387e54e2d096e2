"""Systems side by side: a point and a bar per seed, a stroke for their mean, and what is refused."""

import pytest

from t2ilib.errors import InputError
from t2ilib.plots import seeds

PANELS = {
    "A": {"plain": [(1.0, [0.5, 1.5]), (3.0, [2.5, 3.5])], "other": [(5.0, None)]},
    "B": {"plain": [(1.0, None)] * 2, "other": [(2.0, None)]},
}


def test_every_seed_is_a_point_and_their_mean_a_stroke():
    figure = seeds(PANELS, {"one colour": {"A": 4.0}})
    first, second = figure.axes
    points = [line.get_xydata().tolist()[0] for line in first.lines if line.get_marker() == "o"]
    assert [value for value, _ in points] == [1, 3, 5] and points[2][1] == 1  # one seed lies where its system does
    assert points[0][1] < 0 < points[1][1] and points[0][1] == -points[1][1]
    strokes = [path.vertices.tolist() for part in first.collections for path in part.get_paths()]
    bars = [[[0.5, points[0][1]], [1.5, points[0][1]]], [[2.5, points[1][1]], [3.5, points[1][1]]]]
    assert [stroke for stroke in strokes if stroke[0][1] == stroke[1][1]] == bars
    assert [stroke[0][0] for stroke in strokes if stroke[0][0] == stroke[1][0]] == [2, 5]
    assert [line.get_xdata()[0] for line in first.lines if line.get_linestyle() == ":"] == [4]
    assert not [line for line in second.lines if line.get_linestyle() == ":"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["plain", "other"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first system stands above
    assert [text.get_text() for text in figure.legends[0].get_texts()][-1] == "one colour"


def test_the_numbers_are_those_drawn():
    rows = [row for row in seeds(PANELS, {"one colour": {"A": 4.0}}).numbers if row["panel"] == "A"]
    told = [(row["series"], row.get("seed"), row["value"], row.get("low"), row.get("high")) for row in rows]
    assert told == [
        ("plain", 0, 1, 0.5, 1.5),
        ("plain", 1, 3, 2.5, 3.5),
        ("plain", "mean", 2, None, None),
        ("other", 0, 5, None, None),
        ("other", "mean", 5, None, None),
        ("one colour", None, 4, None, None),
    ]


def test_places_without_a_panel_stay_empty():
    figure = seeds(dict.fromkeys("abc", PANELS["A"]))
    assert [axes.axison for axes in figure.axes] == [True] * 3 + [False]


@pytest.mark.parametrize(
    ("panels", "beside", "message"),
    [
        ({}, None, "panels: none given"),
        ({"A": {}}, None, "one without systems"),
        ({"A": {"x": []}}, None, "A, x: no seeds; give at least one"),
        ({"A": PANELS["A"], "B": {"x": [(1, None)]}}, None, "B: shows x, where others show plain, other"),
        (PANELS, {"mark": {"C": 1.0}}, "mark: no panel C; the panels are A, B"),
    ],
)
def test_what_cannot_be_drawn_is_named(panels, beside, message):
    with pytest.raises(InputError, match=message):
        seeds(panels, beside)
