"""Values that are marked have open markers, a column of their own and one line in the legend."""

import pytest

from t2ilib import plots
from t2ilib.errors import InputError


def opened(axes):
    """Return the places and values that are drawn over a line with open markers."""
    lines = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    return [point for line in lines for point in line.get_xydata().tolist()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def test_marked_values_of_lines_are_open():
    panels = {"A": {"x": [1, 2, 4], "y": [2, 3, 5]}, "B": {"x": [7, 8, 9]}}
    marks = {"old": {"A": {"x": [True, False, True], "y": [False] * 3}}}
    figure = plots.lines(panels, plots.Ticks("abc", [0, 5, 9]), "setting", hollow=marks)
    assert opened(figure.axes[0]) == [[0, 1], [9, 4]] and opened(figure.axes[1]) == []
    assert [(row["series"], row.get("old")) for row in figure.numbers] == [
        *[("x", 1), ("x", 0), ("x", 1)],
        *[("y", 0)] * 3,
        *[("x", None)] * 3,
    ]
    assert legend(figure) == ["old"]
    none = plots.lines(panels, "abc", hollow={"old": {"A": {"x": [False] * 3}}})
    assert legend(none) == [] and opened(none.axes[0]) == []


def test_marked_records_of_progress_are_open_and_only_in_their_own_panel():
    records = [{"images": n, "a": n, "b": -n, "a/old": n == 1} for n in (1, 2)]
    terms, along = {"A": "a", "B": "b"}, {"pictures": ("images", 1), "halves": ("images", 2)}
    figure = plots.progress({"one": [records, records[1:]]}, terms, along, hollow="old")
    assert [opened(axes) for axes in figure.axes] == [[[1, 1]], [], [[0.5, 1]], []]
    assert [row["old"] for row in figure.numbers if row["panel"] == "A"] == [1, 0, 0] * 2
    assert [row["old"] for row in figure.numbers if row["panel"] == "B"] == [0, 0, 0] * 2
    assert legend(figure) == ["one", "seed 1", "old"]
    plain = plots.progress({"one": [records[1:]]}, terms, along, hollow="old")
    assert legend(plain) == ["one"] and opened(plain.axes[0]) == []
    assert all("old" not in row for row in plots.progress({"one": [records]}, terms, along).numbers)


def test_marks_of_no_panel_are_named():
    with pytest.raises(InputError, match="old: no panel C; the panels are A"):
        plots.lines({"A": {"x": [1]}}, "a", hollow={"old": {"C": {"x": [True]}}})
