"""Values with their intervals: the band, the axes, what stands beside, and what is refused."""

import pytest

from t2ilib.errors import InputError
from t2ilib.plots import COLOURS, intervals

POINTS = [(1, 2.0, 1.5, 2.5), (10, 3.0, 2.0, 4.0), (100, 2.5, 2.5, 2.5)]


def test_a_line_through_the_values_and_a_band_of_the_bounds():
    figure = intervals({"a": {"one": POINTS}}, "pictures", "distance", logarithmic=True, limits={"a": (0, 5)})
    (axes,) = figure.axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[1, 2], [10, 3], [100, 2.5]]
    corners = axes.collections[0].get_paths()[0].vertices.tolist()
    assert all([place, bound] in corners for place, _, *bounds in POINTS for bound in bounds)
    assert (axes.get_xscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "pictures", "distance")
    assert axes.get_ylim() == (0, 5) and not figure.legends
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "10", "100"]


def test_panels_have_their_own_labels_and_share_a_legend():
    panels = {name: {"one": POINTS, "two": POINTS} for name in "abcd"}
    across = dict(zip("abcd", ("w", "x", "y", "z"), strict=True))
    figure = intervals(panels, across, beside={"real": {"b": 1.0}})
    assert [axes.get_xlabel() for axes in figure.axes[:4]] == list("wxyz")
    assert [not axes.axison for axes in figure.axes] == [False] * 4 + [True] * 2  # two rows of three places
    assert [line.get_ydata()[0] for line in figure.axes[1].lines if line.get_linestyle() == ":"] == [1.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "real"]
    assert [line.get_color() for line in figure.axes[0].lines] == list(COLOURS[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"panels": {}}, "panels: none given"),
        ({"panels": {"a": {}}}, "one without series"),
        ({"panels": {"a": {"one": [(1, 2, 3)]}}}, r"a, one: \(1, 3\); give points"),
        ({"panels": {"a": {"one": []}}}, r"a, one: \(0,\); give points"),
        ({"panels": {"a": {"one": [(1, 2, 3, 4)]}}}, "a, one: a value lies outside its bounds"),
        ({"panels": {"a": {"one": [(1, 2, float("nan"), 4)]}}}, "a, one: a value lies outside its bounds"),
        ({"limits": {"b": (0, 1)}}, "limits: no panel b; the panels are a"),
        ({"across": {"b": "x"}}, "across: no panel b; the panels are a"),
        ({"beside": {"real": {"b": 1.0}}}, "real: no panel b; the panels are a"),
    ],
)
def test_what_cannot_be_drawn_is_named(change, message):
    with pytest.raises(InputError, match=message):
        intervals(**({"panels": {"a": {"one": POINTS}}} | change))
