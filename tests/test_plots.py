import io
import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from t2ilib import plots
from t2ilib.errors import InputError
from t2ilib.files import sha256
from t2ilib.plots.pictures import PER_PIXEL, SHOWN

RECORDS = [{"step": step, "generator/a": 3 / (step + 1), "discriminator/b": step / 9.0} for step in range(10)]
NOISE = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)


def test_grid_shows_every_picture_and_caption():
    figure = plots.grid(NOISE, [f"a rather long caption, number {i}" for i in range(6)], columns=4, title="Six")
    assert len(figure.axes) == 6 and figure.get_figwidth() == plots.WIDTH
    texts = [axes.texts[0].get_text().replace("\n", " ") for axes in figure.axes]
    assert texts == [f"a rather long caption, number {i}" for i in range(6)]
    assert plots.grid(NOISE).get_figheight() < figure.get_figheight()


def test_a_sheet_names_columns_once_and_rows_at_their_left():
    captions = ["a rather long caption that wraps", "short", "third"]
    figure = plots.sheet(NOISE, 3, captions, rows=["first", "second"])
    assert len(figure.axes) == 6
    below = [axes.texts[0].get_text().replace("\n", " ") if axes.texts else "" for axes in figure.axes]
    assert below == ["", "", "", *captions]
    assert [text.get_text() for text in figure.texts] == ["first", "second"]
    boxes = [axes.get_position() for axes in figure.axes]
    assert min(box.width * figure.get_figwidth() for box in boxes) > 1.08  # inches: 108 of 112 pixels
    assert boxes[0].x0 == boxes[3].x0 and boxes[0].y0 > boxes[3].y1  # row by row
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    many = plots.sheet(np.repeat(NOISE, 2, axis=0), 12)
    assert many.get_figwidth() >= 12 * 1.12  # wider than a page rather than too small to see


def test_sheets_are_shown_as_jpeg_and_drawings_as_png():
    sheet, drawing = plots.sheet(NOISE, 3), plots.curves(RECORDS, ["generator/a"])
    assert Image.open(io.BytesIO(sheet._repr_jpeg_())).format == "JPEG" and sheet._repr_png_() is None
    assert Image.open(io.BytesIO(drawing._repr_png_())).mode == "P" and not hasattr(drawing, "_repr_jpeg_")


def test_a_sheet_takes_no_more_than_its_share_of_a_notebook():
    noisy = np.random.default_rng(0).integers(0, 256, (18, 64, 64, 3), dtype=np.uint8)
    plain = np.full((18, 64, 64, 3), 200, dtype=np.uint8)
    shown = {name: plots.sheet(images, 6)._repr_jpeg_() for name, images in {"noisy": noisy, "plain": plain}.items()}
    assert len(shown["noisy"]) < 60_000 and len(shown["plain"]) < SHOWN
    soft = np.asarray(Image.fromarray(noisy[0][:6, :6]).resize((640, 640), Image.Resampling.BICUBIC))
    large = plots.sheet(np.repeat(soft[None], 36, axis=0), 6)._repr_jpeg_()
    width, height = Image.open(io.BytesIO(large)).size
    assert SHOWN < len(large) <= PER_PIXEL * width * height
    tables = {name: Image.open(io.BytesIO(content)).quantization[0] for name, content in shown.items()}
    assert sum(tables["noisy"]) > 4 * sum(tables["plain"])  # coarser only where it must be


def test_words_of_captions_stay_whole():
    long = "supercalifragilisticexpialidocious blue-winged birds"
    texts = plots.sheet(NOISE, 6, [long] * 6).axes[0].texts
    assert texts[0].get_text().split() == long.split()


def test_curves_draw_raw_and_smoothed():
    lines = plots.curves(RECORDS, ["generator/a"], smooth=0.5).axes[0].lines
    assert len(lines) == 2 and lines[1].get_label() == "generator/a"
    assert np.ptp(lines[1].get_ydata()) < np.ptp(lines[0].get_ydata())
    assert len(plots.curves(RECORDS, {"G": ["generator/a"], "D": ["discriminator/b"]}).axes) == 2
    with pytest.raises(InputError, match="discriminator/b"):
        plots.curves(RECORDS, ["missing"])


def test_legends_lie_off_the_curves_and_axes_can_be_fixed():
    panels = {"G": ["generator/a"], "D": ["discriminator/b"]}
    figure = plots.curves(RECORDS, panels, limits={"G": (-1, 7)})
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0
    assert figure.axes[0].get_ylim() == (-1, 7) and figure.axes[1].get_ylim() != (-1, 7)
    assert plots.lines({"A": {"x": [1, 2]}}, [0, 1], limits={"A": (0, 9)}).axes[0].get_ylim() == (0, 9)
    assert plots.bars({"A": {"x": 1}}, limits=(0, 9)).axes[0].get_ylim() == (0, 9)


def test_a_band_spans_the_seeds_around_their_mean():
    seeds = [[{"step": step, "a": scale * step} for step in (1, 2)] for scale in (1, 2, 6)]
    figure = plots.banded({"one": seeds}, {"A": "a"}, limits={"A": (0, 20)}, beside={"real": {"A": 15}})
    axes = figure.axes[0]
    assert axes.lines[0].get_xydata().tolist() == [[1, 3], [2, 6]]
    corners = axes.collections[0].get_paths()[0].vertices.tolist()
    assert all(corner in corners for corner in ([1, 1], [1, 6], [2, 2], [2, 12]))
    assert set(axes.lines[1].get_ydata()) == {15} and axes.get_ylim() == (0, 20)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "real"]
    with pytest.raises(InputError, match="one: its seeds have a at different places"):
        plots.banded({"one": [seeds[0], seeds[1][:1]]}, {"A": "a"})


def test_long_names_of_many_bars_are_written_aslant():
    short, long = ({"A": dict.fromkeys(names, 1.0)} for names in ("abc", [f"a long name {n}" for n in range(8)]))
    slants = [plots.bars(groups).axes[0].get_xticklabels()[0].get_rotation() for groups in (short, long)]
    assert slants == [0, 30]


def test_a_plane_draws_points_values_and_directions_where_they_are():
    def total(points):
        return points.sum(1)

    dots = torch.tensor([[0.5, -0.5], [1.0, 1.0]])
    arrows = plots.Arrows(dots, torch.tensor([[3.0, 0.0], [0.0, 0.1]]))
    panels = {"one": [plots.Surface(total, [-1, 0, 1], "sum"), plots.Dots(dots, "real", 1)], "two": [arrows]}
    panels["three"] = [plots.Levels(total, [0.5, -0.5]), plots.Dots(dots, "real", 1)]
    one, two, three, *rest = plots.plane(panels, (-1, 2), (-1, 1)).axes
    assert [axes.get_title("left") for axes in (one, two, three)] == ["one", "two", "three"]
    assert one.get_xlim() == (-1, 2) and three.get_ylim() == (-1, 1)
    assert one.collections[-1].get_offsets().tolist() == dots.tolist()
    assert one.collections[0].levels.tolist() == [-1, 0, 1] and rest[0].get_ylabel() == "sum"
    quiver = two.collections[0]
    assert (quiver.U.tolist(), quiver.V.tolist()) == ([1.0, 0.0], [0.0, 1.0])  # of one length
    zero = [path for path in three.collections[0].get_paths() if len(path.vertices)][1].vertices
    assert np.allclose(zero.sum(1), 0.5, atol=0.02)  # x + y = 0.5, not its mirror image
    with pytest.raises(InputError, match="give"):
        plots.plane({})
    with pytest.raises(InputError, match=r"\(N,\)"):
        plots.plane({"bad": [plots.Surface(lambda points: points)]})


def test_smoothing_starts_without_bias_and_survives_nan():
    assert plots.smoothed([4, 4, 4], 0.9).tolist() == pytest.approx([4, 4, 4])
    assert plots.smoothed([2, 6], 0.5)[1] == pytest.approx((0.25 * 2 + 0.5 * 6) / 0.75)
    assert plots.smoothed([1, np.nan, 1], 0.9).tolist() == pytest.approx([1, 1, 1])


def test_bars_stand_side_by_side():
    axes = plots.bars({"A": {"x": 1, "y": 2}, "B": {"x": 3}}, {"A": {"x": 0.1}}, "value", {"x": 0.5}).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y"]
    assert len(axes.patches) == 4 and axes.patches[0].get_height() == 1


def test_lines_stand_over_evenly_spaced_ticks():
    panels = {"A": {"x": [1, 2, 4]}, "B": {"x": [0, 1, 0], "y": [3, 2, 1]}, "C": {"x": [1, 1, 1]}}
    axes = plots.lines(panels, [0, 0.1, 4], "lambda").axes
    assert [one.get_title("left") for one in axes[:3]] == ["A", "B", "C"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["0", "0.1", "4"]
    assert axes[1].lines[1].get_xydata().tolist() == [[0, 3], [1, 2], [2, 1]]
    assert axes[0].get_legend() is None and not axes[3].axison


def test_numbers_stand_at_their_own_places_and_a_setting_of_another_kind_off_the_line():
    ticks = plots.Ticks(["0", "0.1", "none"], [0, 0.1, 0.4], alone=1)
    figure = plots.lines({"A": {"x": [1, 2, 4]}}, ticks, "share", bounds={"A": {"x": [[0, 2], [1, 3], [3, 5]]}})
    line, alone = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[0, 1], [0.1, 2]] and alone.get_xydata().tolist() == [[0.4, 4]]
    assert alone.get_linewidth() == 0 and line.get_color() == alone.get_color()
    assert [path.vertices[0].tolist() for path in figure.axes[0].collections[0].get_paths()] == [
        [0, 0],
        [0.1, 1],
        [0.4, 3],
    ]
    assert numbers(figure, "share", "value", series="x") == [("0", 1), ("0.1", 2), ("none", 4)]
    (axes,) = plots.lines({"A": {"x": [1, 2, 4]}}, plots.Ticks([0, 0.01, 4], [0, 0.01, 4], linear_to=0.01)).axes
    assert axes.get_xscale() == "symlog" and [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.01", "4"]
    with pytest.raises(InputError, match="2 labels for 1 places; give as many of both"):
        plots.Ticks(["0", "1"], [0])


def test_contact_sheet_keeps_every_pixel(tmp_path):
    sheet = np.asarray(plots.contact_sheet(NOISE, columns=4, path=tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 18 - 2, 4 * 18 - 2, 3)
    assert (sheet[18:, 18:34] == NOISE[5]).all()
    assert (np.asarray(Image.open(tmp_path / "sheet.png")) == sheet).all()


def test_progress_draws_every_seed_over_every_axis_beside_a_mark():
    def run(scale):
        return [{"images": 1000 * n, "seconds": 60 * n, "metric/a": scale * n, "metric/b": -n} for n in (1, 2, 3)]

    runs, terms = {"one": [run(1), run(2)], "two": [run(3)]}, {"A": "metric/a", "B": "metric/b"}
    along = {"thousands": ("images", 1e3), "minutes": ("seconds", 60)}
    figure = plots.progress(runs, terms, along, {"mark": {"A": 5.0, "B": -2.0}})
    assert [axes.get_title() for axes in figure.axes] == ["", ""] * 2  # titles stand at the left
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["A", "B", "", ""]
    assert [axes.get_xlabel() for axes in figure.axes] == ["thousands"] * 2 + ["minutes"] * 2
    for axes, title in zip(figure.axes, ("A", "B") * 2, strict=True):
        *seeds, mark = axes.get_lines()
        assert [list(line.get_xdata()) for line in seeds] == [[1, 2, 3]] * 3
        slopes = [line.get_ydata()[-1] / 3 for line in seeds]
        assert slopes == ([1, 2, 3] if title == "A" else [-1] * 3)
        assert set(mark.get_ydata()) == {{"A": 5.0, "B": -2.0}[title]}
        assert seeds[0].get_color() == seeds[1].get_color() != seeds[2].get_color()
        assert seeds[0].get_linestyle() == seeds[2].get_linestyle() != seeds[1].get_linestyle()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "mark", "seed 1"]
    limits = [axes.get_xlim() for axes in figure.axes]
    assert limits[0] == limits[1] and limits[2] == limits[3]


def test_saving_is_deterministic_and_keeps_the_manifest(tmp_path):
    source = tmp_path / "records.jsonl"
    source.write_text("{}\n")
    figure = plots.curves(RECORDS, ["generator/a"])
    first = plots.save_figure(figure, "b", "make figures", [source], folder=tmp_path).read_bytes()
    plots.save_figure(plots.contact_sheet(NOISE), "a", "make sheet", folder=tmp_path)
    again = plots.save_figure(plots.curves(RECORDS, ["generator/a"]), "b", "make figures", [source], folder=tmp_path)
    assert again.read_bytes() == first and b"Software" not in first and b"matplotlib" not in first
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest) == ["a", "b"]
    written = {f"b.{kind}": sha256(tmp_path / f"b.{kind}") for kind in ("csv", "pdf", "png")}
    told = {"by": "make figures", "sources": {source.name: sha256(source)}, "files": written, "size": [700, 400]}
    assert manifest["b"] == {**told, "commit": manifest["b"]["commit"]} and manifest["a"]["files"].keys() == {"a.png"}


def test_an_entry_keeps_its_commit_while_nothing_else_changes(tmp_path):
    def save(colour, built_from):
        picture = Image.new("RGB", (8, 8), colour)
        plots.save_figure(picture, "a", "test", folder=tmp_path, built_from=built_from)
        return json.loads((tmp_path / "manifest.json").read_text())["a"]["commit"]

    assert [save("red", "one"), save("red", "two"), save("blue", "three")] == ["one", "one", "three"]


def test_a_chart_s_numbers_are_those_of_its_lines(tmp_path):
    figure = plots.curves(RECORDS, {"G": ["generator/a"], "D": ["discriminator/b"]}, smooth=0.5)
    plots.save_figure(figure, "a", "test", folder=tmp_path)
    rows = plots.read_rows(tmp_path / "a.csv")
    assert list(rows[0]) == ["panel", "series", "step", "value", "smoothed"] and len(rows) == 20
    for axes, panel in zip(figure.axes, ("G", "D"), strict=True):
        own = [row for row in rows if row["panel"] == panel]
        for line, column in zip(axes.lines, ("value", "smoothed"), strict=True):
            assert [float(row["step"]) for row in own] == list(line.get_xdata())
            assert [float(row[column]) for row in own] == pytest.approx(list(line.get_ydata()), rel=1e-5)


def numbers(figure, *columns, **where):
    rows = [row for row in figure.numbers if where.items() <= row.items()]
    return [tuple(row.get(column) for column in columns) for row in rows]


def test_every_kind_of_chart_keeps_what_it_draws():
    seeds = [[{"step": step, "a": scale * step} for step in (1, 2)] for scale in (1, 3)]
    band = plots.banded({"one": seeds}, {"A": "a"}, beside={"real": {"A": 15}})
    assert numbers(band, "step", "mean", "low", "high", series="one") == [(1, 2, 1, 3), (2, 4, 2, 6)]
    assert numbers(band, "panel", "value", series="real") == [("A", 15)]
    bars = plots.bars({"A": {"x": 1, "y": 2}}, {"A": {"x": 0.1}}, reference={"y": 0.5})
    assert numbers(bars, "category", "value", series="A") == [("x", 1), ("y", 2)]
    assert numbers(bars, "category", "value", series="chance") == [("y", 0.5)] and bars.numbers[0]["error"] == 0.1
    lines = plots.lines({"A": {"x": [1, 2]}}, [0, 4], "lambda", bounds={"A": {"x": [[0, 3], [1, 4]]}})
    assert numbers(lines, "lambda", "value", "low", "high") == [(0, 1, 0, 3), (4, 2, 1, 4)]
    assert [path.vertices.tolist() for path in lines.axes[0].collections[0].get_paths()] == [
        [[0, 0], [0, 3]],
        [[1, 1], [1, 4]],
    ]


def test_progress_draws_the_intervals_of_measurements():
    run = [{"images": n, "a": n, "a/interval": [n - 1, n + 1]} for n in (1, 2)]
    figure = plots.progress({"one": [run, [{"images": 1, "a": 5}]]}, {"A": "a"}, {"pictures": ("images", 1)})
    assert numbers(figure, "line", "place", "value", "low", "high") == [
        (0, 1, 1, 0, 2),
        (0, 2, 2, 1, 3),
        (1, 1, 5, None, None),
    ]
    assert len(figure.axes[0].collections) == 1  # the second seed was measured without


def test_drawings_are_vectors_without_dates_and_sheets_are_pictures(tmp_path):
    drawing, told = plots.curves(RECORDS, ["generator/a"]), [{"caption": "a bird, red", "seed": 3}]
    plots.save_figure(drawing, "a", "test", folder=tmp_path)
    plots.save_figure(plots.grid(NOISE), "b", "test", folder=tmp_path, rows=told)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == [
        *("a.csv", "a.pdf", "a.png"),
        *("b.csv", "b.png"),
    ]
    content = (tmp_path / "a.pdf").read_bytes()
    assert content.startswith(b"%PDF") and b"Date" not in content and b"matplotlib" not in content.lower()
    assert plots.read_rows(tmp_path / "b.csv") == [{"caption": "a bird, red", "seed": "3"}]


def test_a_drawing_s_bytes_do_not_depend_on_the_process(tmp_path):
    code = (
        "import sys; from t2ilib import plots; "
        "f = plots.curves([{'step': s, 'a': s * 0.37} for s in range(9)], ['a']); "
        "plots.save_figure(f, 'a', 'test', folder=sys.argv[1], built_from='x')"
    )
    found = []
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number}
        subprocess.run([sys.executable, "-c", code, str(tmp_path / number)], check=True, env=environment)
        found.append({path.name: path.read_bytes() for path in (tmp_path / number).iterdir()})
    assert found[0] == found[1] and found[0].keys() == {"a.png", "a.pdf", "a.csv", "manifest.json"}


def test_what_is_missing_is_an_empty_cell(tmp_path):
    rows = [{"a": float("nan"), "b": None, "c": True}, {"a": np.float32(1 / 3), "d": 12345678}]
    path = plots.write_rows(tmp_path / "rows.csv", rows)
    assert path.read_text() == "a,b,c,d\n,,True,\n0.333333,,,12345678\n"


# How the three kinds of colour blindness see a colour, for the strongest form: Machado, Oliveira and Fernandes 2009,
# "A physiologically-based model for simulation of color vision deficiency", table 1; linear RGB to linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour, blindness):
    """Return CIE L*a*b* of a colour "#rrggbb" as somebody sees it (sRGB, white D65)."""
    values = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    xyz = matrix @ (blindness @ linear).clip(0, 1) / (0.95047, 1, 1.08883)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_colours_differ_for_everybody(kind):
    seen = [lab(colour, np.array(BLINDNESS[kind])) for colour in plots.COLOURS]
    apart = [np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2)]
    assert min(apart) > 15  # a difference of 2 is just seen side by side; the palette before this one had 3.6


def test_series_differ_without_colour():
    records = [{"step": step, "a": step, "b": -step, "c": 0} for step in range(3)]
    thick = plots.curves(records, ["a", "b", "c"]).axes[0].lines[1::2]
    marks = plots.lines({"A": {"x": [1], "y": [2], "z": [3]}}, [0]).axes[0].lines
    assert len({line._dash_pattern[1] and tuple(line._dash_pattern[1]) for line in thick}) == 3
    assert len({line.get_marker() for line in marks}) == 3


def test_large_pictures_are_reduced(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8))
    path = plots.save_figure(noise, "noise", "test", folder=tmp_path)
    assert path.stat().st_size <= plots.LIMIT and Image.open(path).width > 300


def test_a_notebook_shows_a_figure_once_and_without_pyplot():
    picture = Image.open(io.BytesIO(plots.grid(NOISE)._repr_jpeg_()))
    assert picture.width == 700


def test_source_is_printed_without_indentation(capsys):
    plots.show_source(plots.Plot._repr_png_, plots.smoothed)
    printed = capsys.readouterr().out
    assert printed.startswith("def _repr_png_") and "\ndef smoothed(" in printed


def test_a_notebook_shows_source_with_colours(monkeypatch):
    shown = []
    monkeypatch.setattr("builtins.display", lambda data, raw: shown.append(data), raising=False)
    plots.show_source(plots.smoothed)
    assert shown[0]["text/markdown"] == f"```python\n{shown[0]['text/plain']}\n```"
    assert shown[0]["text/plain"].startswith("def smoothed(")


def test_a_frame_runs_along_the_inside_of_its_box():
    image = np.zeros((8, 10, 3), dtype=np.uint8)
    shown = plots.framed(image, (1, 2.0, 9, 8), colour="#ff0000", width=2)
    inside = np.zeros((8, 10), dtype=bool)
    inside[2:8, 1:9] = True
    inside[4:6, 3:7] = False
    assert (shown[..., 0] == 255 * inside).all() and not shown[..., 1:].any()
    assert not image.any()  # a copy


SEED = [{"step": 1, "a": 1.0, "b": 2.0}, {"step": 2, "a": 3.0, "b": 4.0}]
RED = plots.Dots(torch.zeros(1, 2), "real", 0)
SUM = plots.Surface(lambda points: points.sum(1), [0, 1])
ODD = {
    "no terms": (lambda: plots.banded({"one": [SEED]}, {}), "terms: none given"),
    "no seeds": (lambda: plots.banded({"one": []}, {"A": "a"}), "seeds of one: none given"),
    "an empty seed": (lambda: plots.banded({"one": [[]]}, {"A": "a"}), "a seed of one: none given"),
    "other values": (
        lambda: plots.banded({"one": [SEED, [SEED[0], {"step": 3, "a": 1}]]}, {"A": "a"}),
        "one: its seeds have a at different places",
    ),
    "limits": (lambda: plots.banded({"one": [SEED]}, {"A": "a"}, limits={"B": (0, 1)}), "limits: no panel B"),
    "beside": (lambda: plots.banded({"one": [SEED]}, {"A": "a"}, beside={"x": {"B": 1}}), "x: no panel B; .* are A"),
    "no curves": (lambda: plots.curves([], {}), "terms: none given"),
    "no bars": (lambda: plots.bars({}), "groups: none given"),
    "no lines": (lambda: plots.lines({}, [1]), "panels: none given"),
    "no pictures": (lambda: plots.sheet(NOISE[:0]), "images: none given"),
    "no columns": (lambda: plots.sheet(NOISE, columns=0), "columns = 0: must be at least 1"),
    "a box": (lambda: plots.framed(NOISE[0], (3, 3, 3, 9)), "box = .* is empty"),
    "reversed": (lambda: plots.plane({"one": [RED]}, across=(2, -2)), "across = .* lower bound first"),
    "nothing up": (lambda: plots.plane({"one": [RED]}, up=(0, 0)), "up = .* lower bound first"),
    "falling": (lambda: plots.plane({"one": [plots.Surface(SUM.function, [1, 0])]}), "levels = .* each higher"),
    "three": (lambda: plots.plane({"one": [plots.Dots(torch.zeros(2, 3))]}), r"points: of shape \(2, 3\); give"),
    "colours": (lambda: plots.plane({"one": [RED, plots.Dots(RED.points, "real", 1)]}), "dots real: have two colours"),
    "scales": (
        lambda: plots.plane({"a": [SUM], "b": [plots.Surface(SUM.function, [0, 2])]}),
        "levels or labels differ",
    ),
    "infinite": (lambda: plots.plane({"one": [plots.Surface(lambda p: 1 / (p[:, 0] * 0))]}), "not finite everywhere"),
}


@pytest.mark.parametrize(("draw", "message"), ODD.values(), ids=ODD)
def test_what_cannot_be_drawn_is_named(draw, message):
    with pytest.raises(InputError, match=message):
        draw()


def test_a_plane_fills_rows_shows_what_is_beyond_its_levels_and_hides_spare_axes():
    dots = {str(number): [SUM, plots.Levels(SUM.function, 0)] for number in range(5)}
    *panels, _ = plots.plane(dots).axes
    assert [axes.axison for axes in panels] == [True] * 5 + [False] * 3
    assert len({axes.get_subplotspec().rowspan.start for axes in panels}) == 2
    assert panels[0].collections[0].extend == "both"
    numbered = [
        (axes.xaxis.get_tick_params()["labelbottom"], axes.yaxis.get_tick_params()["labelleft"]) for axes in panels
    ]
    assert numbered[:5] == [(False, True), (True, False), (True, False), (True, False), (True, True)]
    assert panels[0].get_xticks().tolist() == [-2, -1, 0, 1, 2]


def test_a_legend_names_the_lines_of_all_panels():
    figure = plots.banded({"one": [SEED]}, {"A": "a", "B": "b"}, beside={"real": {"B": 3}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "real"]


def test_many_terms_leave_their_panels_room():
    records = [{"step": step} | {f"term {n}": float(n) for n in range(12)} for step in range(3)]
    names = [f"term {n}" for n in range(12)]
    figure = plots.curves(records, dict.fromkeys("ABC", names))
    figure.draw_without_rendering()
    assert all(axes.get_position().height * figure.get_figheight() > 1.8 for axes in figure.axes)


def test_a_legend_keeps_to_its_own_panel():
    names = {"D": [f"discriminator/{kind}" for kind in ("real", "fake", "mismatched")], "G": ["generator/adversarial"]}
    records = [{"step": step} | dict.fromkeys((*names["D"], *names["G"]), 1.0) for step in range(3)]
    figure = plots.curves(records, names)
    figure.draw_without_rendering()
    boxes = [axes.get_legend().get_window_extent() for axes in figure.axes]
    assert boxes[0].x0 >= 0 and boxes[0].x1 <= boxes[1].x0 and boxes[1].x1 <= figure.bbox.width
