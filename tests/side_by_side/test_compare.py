"""Systems side by side: numbers, figures and files."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from t2ilib import files
from t2ilib.cli import app
from t2ilib.comparison import open_all, open_finished, over_seeds
from t2ilib.errors import InputError
from t2ilib.files import ROOT
from t2ilib.side_by_side import compare, costs, systems
from t2ilib.side_by_side.drawing import title_of
from t2ilib.side_by_side.systems import weights_of

CAPTIONS = ["a red bird.", "a blue bird."]
FILES = ["compare.csv", "compare.json", "compare.md", "grid.png", "quality.png"]


@pytest.fixture(autouse=True)
def timed(monkeypatch):
    """Painting takes the same time whenever it is asked for."""
    monkeypatch.setattr(costs, "pictures_per_second", lambda sampler, captions: 123.4)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def page_rows(page, start):
    """Return the rows of one table of a page as mappings of title to cell."""
    lines = page[page.index(start) :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells[2:]}


def test_a_row_per_system_beside_what_needs_no_network(trained, run, tmp_path):
    folders = [trained("b_toy", 0.6), run("b_toy_seed1", 0.5, hours=2.0, model={"ngf": 4, "ndf": 4, "batch_size": 4})]
    found = compare([*folders, trained("a_toy", 0.7)], CAPTIONS, out=tmp_path / "out")
    assert [row.name for row in found.rows] == ["a_toy", "b_toy"] and found.rows[1].seeds == (0, 1)
    assert found.rows[1].numbers["attribute_accuracy"] == pytest.approx((0.55, 0.4, 0.7))
    reached, paid = (page_rows(found.page(), start) for start in ("| system | seeds", "| system | generator"))
    assert list(reached) == ["chance", "one colour", "real pictures", "a_toy", "b_toy"]
    assert reached["b_toy"]["attributes"] == "0.550 (0.400 to 0.700)" and reached["b_toy"]["seeds"] == "2"
    assert reached["chance"]["attributes"] == "0.200" and reached["chance"]["R-precision"] == "0.010"
    assert reached["chance"]["composition"] == "0.016" and reached["chance"]["toy FD"] == ""
    assert reached["one colour"]["toy FD"] == "60.0 (54.0 to 66.0)"
    assert reached["real pictures"]["toy FD"].startswith("90.0")
    assert paid["b_toy"]["hours"] == "1.50" and paid["b_toy"]["s per 1,000 pictures"] == "8,438"
    assert paid["a_toy"]["painted per second"] == "123" and paid["a_toy"]["pictures seen"] == "640"
    assert paid["a_toy"]["generator"] == f"{found.rows[0].costs['generator']:,}"
    assert found.page().startswith("One budget: 640 pictures seen, 64 px, 100 captions,")


def test_the_judge_is_named_where_results_say_who_it_is(trained, tmp_path):
    said, judge = "100 x cosine by toy-clip-resnet, negative ones as 0", "b" * 64
    older, newer = trained("a_toy", judge_encoder=judge), trained("b_toy", judge_encoder=judge, clip_score=said)
    found = compare([older, newer], CAPTIONS, out=tmp_path / "out")
    assert f"judge {judge[:12]};" in found.page().splitlines()[0]
    assert f"- CLIP score of judge {judge[:12]}: {said}\n" in found.page()
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["judges"] == {judge[:12]: said}
    assert "CLIP score of judge" not in compare([older], CAPTIONS).page()


def test_memory_of_training_is_the_most_of_all_records_and_seeds(trained, run, tmp_path):
    folders = [
        trained("a_toy", 0.6),
        trained("b_toy", 0.6),
        run("b_toy_seed1", 0.5, model={"ngf": 4, "ndf": 4, "batch_size": 4}),
    ]
    for folder, peaks in zip(folders[1:], [(900, 700), (800, 850)], strict=True):  # the first was resumed
        rows = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
        last = rows[-1]
        rows = [last | {"step": 1, "peak_memory": peaks[0]}, last | {"peak_memory": peaks[1]}]
        (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    paid = page_rows(compare(folders, CAPTIONS, out=tmp_path / "out").page(), "| system | generator")
    assert paid["b_toy"]["MiB to train"] == "900" and paid["a_toy"]["MiB to train"] == ""


def test_the_files_hold_what_was_found(trained, tmp_path):
    out = tmp_path / "out"
    found = compare([trained("a_toy", 0.7), trained("b_toy", 0.6)], CAPTIONS, 3, out)
    assert names(out) == FILES
    assert (out / "compare.md").read_text() == found.page()
    rows = {row["system"]: row for row in csv.DictReader((out / "compare.csv").open())}
    assert list(rows) == ["chance", "one colour", "real pictures", "a_toy", "b_toy"]
    assert float(rows["a_toy"]["toy_fd"]) == pytest.approx(70) and float(rows["a_toy"]["toy_fd_high"]) == 77
    assert rows["chance"]["toy_fd"] == "" and rows["chance"]["hours"] == ""
    assert float(rows["b_toy"]["hours"]) == 1 and int(rows["b_toy"]["frozen"]) > 1_000_000
    told = json.loads((out / "compare.json").read_text())
    assert told["compares"] and told["captions"] == CAPTIONS and told["seed"] == 3 and told["split"] == "test"
    assert told["rows"][0]["numbers"]["toy_fd"] == pytest.approx([70, 63, 77])
    assert told["rows"][0]["painted_by"] == "a_toy: checkpoints/step_00000020.safetensors"
    assert {"commit", "hardware", "torch", "date", "command"} <= told["environment"].keys()
    digest = files.sha256(tmp_path / "a_toy" / "records.jsonl")
    assert told["sources"]["a_toy: records.jsonl"] == digest
    with Image.open(out / "grid.png") as grid, Image.open(out / "quality.png") as quality:
        assert grid.width >= 2 * 112 and grid.height >= 2 * 112 and quality.width == 700


def test_the_order_of_the_arguments_changes_nothing(trained, tmp_path):
    folders = [trained(name, value) for name, value in {"b_toy": 0.6, "a_toy": 0.7, "b_toy_seed1": 0.5}.items()]
    outs = tmp_path / "first", tmp_path / "second"
    for order, out in zip((folders, folders[::-1]), outs, strict=True):
        compare(order, CAPTIONS, out=out)
    for name in FILES:
        if name != "compare.json":
            assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes(), name
    told = [json.loads((out / "compare.json").read_text()) for out in outs]
    assert [each.pop("environment") is not None for each in told] == [True, True] and told[0] == told[1]


def test_captions_and_noise_are_the_same_for_all_and_the_seed_decides(trained):
    folder = trained("a_toy")
    first = compare([folder], [CAPTIONS[0]] * 2)
    assert first.rows[0].pictures.shape == (2, 64, 64, 3)
    assert (first.rows[0].pictures[0] != first.rows[0].pictures[1]).any()  # each column has its own noise
    again, other = compare([folder], [CAPTIONS[0]] * 2), compare([folder], [CAPTIONS[0]] * 2, seed=1)
    assert (first.rows[0].pictures == again.rows[0].pictures).all()
    assert (first.rows[0].pictures != other.rows[0].pictures).any()
    words = compare([folder], CAPTIONS)
    assert (words.rows[0].pictures[0] == first.rows[0].pictures[0]).all()
    assert (words.rows[0].pictures[1] != first.rows[0].pictures[1]).any()


def test_a_system_without_weights_says_so_in_its_row(trained, run):
    found = compare([trained("a_toy"), run("b_toy")], CAPTIONS)
    first, second = found.rows
    assert first.pictures is not None and not first.missing
    assert second.pictures is None and "painted per second" not in second.costs
    assert "no weights of step 20, neither in b_toy/checkpoints nor among the shipped" in second.missing
    assert f"b_toy paints nothing here: {second.missing}" in found.page()
    figure = found.grid()
    written = [text.get_text() for text in figure.texts]
    assert written == ["a_toy", "b_toy", second.missing]
    own, (x, y) = figure.axes[2].get_position(), figure.texts[2].get_position()
    assert own.x0 < x and own.y0 < y < own.y1  # in its row
    assert len(figure.axes) == 4 and (np.asarray(figure.axes[3].images[0].get_array()) == 242).all()


def test_shipped_weights_of_another_step_paint_nothing(trained, run, tmp_path, monkeypatch):
    """They are of the same recipe, and not those that were measured."""
    kept = sorted((trained("a_toy") / "checkpoints").glob("*.safetensors"))[-1]
    shipped = tmp_path / "shipped"
    shipped.mkdir(exist_ok=True)
    shutil.copy(kept, shipped / "b_toy.safetensors")
    monkeypatch.setattr(files, "WEIGHTS", shipped)
    model = {"ngf": 4, "ndf": 4, "batch_size": 4}
    monkeypatch.setattr(systems, "same", lambda one, other: True)
    assert weights_of(open_finished(run("b_toy", model=model))) == shipped / "b_toy.safetensors"
    assert weights_of(open_finished(run("b_toy", model=model, step=21))) is None


def test_every_file_that_was_read_is_a_source(trained, run, tmp_path):
    model = {"ngf": 4, "ndf": 4, "batch_size": 4}
    compare([trained("a_toy"), run("a_toy_seed1", model=model)], CAPTIONS, out=tmp_path / "out")
    found = json.loads((tmp_path / "out" / "compare.json").read_text())["sources"]
    expected = {
        f"{name}: {path.relative_to(tmp_path / name).as_posix()}"
        for name in ("a_toy", "a_toy_seed1")
        for path in (tmp_path / name).rglob("*")
        if path.suffix == ".json" or path.name in ("config.yaml", "records.jsonl")
    }
    assert len(expected) >= 8 and set(found) - expected == {"a_toy: checkpoints/step_00000020.safetensors"}
    assert expected <= set(found)


def test_no_weights_anywhere_still_compare(run, tmp_path):
    found = compare([run("a_toy"), run("b_toy")], CAPTIONS, out=tmp_path / "out")
    assert all(row.pictures is None for row in found.rows) and names(tmp_path / "out") == FILES


def test_quality_is_drawn_seed_by_seed_with_what_older_measures_found(run, write_records):
    for name, better in {"a_toy": 0.0, "a_toy_seed1": 0.2}.items():
        run(name, 0.3 + better, step=10, splits=("test",), version=1)
        folder = run(name, 0.5 + better, step=20, splits=("test",))
        write_records(folder, {10: (320, 60.0 + 60 * better), 15: (480, 90.0), 20: (640, 180.0)})
    other = folder.with_name("a_toy") / "results" / "evaluation-0015.json"
    foreign = json.loads((folder / "results" / "evaluation-0020-test.json").read_text())
    foreign["protocol"] |= {"step": 15, "judge_encoder": "another"}
    other.write_text(json.dumps(foreign))
    found = compare([folder, folder.with_name("a_toy")], CAPTIONS)
    assert [[(p["images"], p["earlier"]) for p in seed] for seed in found.rows[0].points] == [
        [(320, True), (640, False)]  # of step 15 another judge's numbers are left out
    ] * 2
    figure = found.quality()
    titles = [axes.get_title("left") for axes in figure.axes[::2]]
    assert titles[:3] == ["attributes", "composition", "toy FD, less is better"] and len(titles) == 6
    attributes, over_time = figure.axes[:2]
    seeds, mean = [line.get_xydata().tolist() for line in attributes.lines[:2]], attributes.lines[2].get_xydata()
    assert seeds[0] == [pytest.approx([0.32, 0.3]), pytest.approx([0.64, 0.5])]
    assert mean.tolist() == [pytest.approx([0.32, 0.4]), pytest.approx([0.64, 0.6])]
    assert attributes.lines[2].get_linewidth() > attributes.lines[0].get_linewidth()
    assert over_time.lines[2].get_xdata().tolist() == pytest.approx([1.1, 3.0])  # minutes
    faces = [line.get_markerfacecolor() for line in attributes.lines[3:5]]
    assert faces[0] == "white" and faces[1] != "white"
    dashed = [line for line in attributes.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == pytest.approx([0.6])  # one colour
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a_toy", "one colour"]
    assert "open markers" in found.page()


def test_different_budgets_are_refused_or_shown_as_such(trained, run, tmp_path):
    out = tmp_path / "out"
    folders = [trained("a_toy"), trained("b_toy", images=1280, size=32, judge_encoder="another")]
    with pytest.raises(InputError, match="pictures seen: a_toy 640, b_toy 1280; runs of different budgets"):
        compare(folders, CAPTIONS, out=out)
    assert not out.exists()
    found = compare(folders, CAPTIONS, out=out, different=True)
    assert (out / "compare.md").read_text().splitlines()[0].startswith("**These rows do not compare:** they differ in ")
    assert not json.loads((out / "compare.json").read_text())["compares"]
    rows = page_rows(found.page(), "| system | seeds")
    assert [rows[name]["data.size"] for name in ("a_toy", "b_toy")] == ["64", "32"]
    assert [rows[name]["judge_encoder"] for name in ("a_toy", "b_toy")] == ["judges", "another"]
    assert rows["real pictures"]["data.size"] == ""  # nobody trained them
    assert [(row.name, row.settings) for row in found.beside if row.name == "chance"] == [
        ("chance", {"judge_encoder": "judges"}),
        ("chance", {"judge_encoder": "another"}),
    ]
    assert "do not compare" in found.quality().get_suptitle()
    assert not [line for line in found.quality().axes[0].lines if line.get_linestyle() == "--"]
    assert found.grid().axes[2].images[0].get_array().shape == (64, 64, 3)  # the smaller ones are enlarged


def test_other_files_of_the_folder_are_left_alone(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("manifest.json", "notes.txt", "compare.md"):
        (out / name).write_text("mine")
    compare([run("a_toy")], CAPTIONS, out=out)
    assert names(out) == sorted([*FILES, "manifest.json", "notes.txt"])
    assert [(out / name).read_text() for name in ("manifest.json", "notes.txt")] == ["mine", "mine"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: no folder; name another one"):
        compare([tmp_path / "a_toy"], CAPTIONS, out=tmp_path / "file")


def test_captions_are_those_given_or_those_of_a_run(run, tmp_path):
    first, second = run("a_toy"), run("b_toy")
    with pytest.raises(InputError, match=r"captions: none given, and no run kept .*--captions"):
        compare([first, second])
    (second / "captions.txt").write_text("a red bird.\n\na green bird.\n")
    assert compare([first, second]).captions == ("a red bird.", "a green bird.")
    for wrong in ([], ["a bird."] * 17, "a bird."):
        with pytest.raises(InputError, match=r"captions = .*: give a list of 1 to 16"):
            compare([first], wrong)
    with pytest.raises(InputError, match="seed = -1"):
        compare([first], CAPTIONS, seed=-1)


def test_damaged_weights_and_records_are_named(trained):
    folder = trained("a_toy")
    path = folder / "checkpoints" / "step_00000020.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"step_00000020\.safetensors: not a whole checkpoint"):
        compare([folder], CAPTIONS)
    (folder / "records.jsonl").write_text('{"step": 20, "images": 640}\n')
    with pytest.raises(InputError, match=r"a_toy/records\.jsonl: its last record has no seconds"):
        compare([folder], CAPTIONS)


def test_an_encoder_that_is_not_there_leaves_its_cells_empty(run, caplog):
    folder = run("a_toy")
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("encoders: {}", "encoders: {text: {name: contrastive}}"))
    found = compare([folder], CAPTIONS)
    assert found.rows[0].costs["generator"] is None and "a_toy: its weights are not counted" in caplog.text
    assert page_rows(found.page(), "| system | generator")["a_toy"]["generator"] == ""


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("attribute_accuracy", "attributes"),
        ("toy_fd", "toy FD"),
        ("clip_fd", "CLIP FD"),
        ("r_precision", "R-precision"),
        ("fid", "FID"),
        ("some_new_number", "some new number"),
    ],
)
def test_numbers_that_are_not_known_yet_have_a_name(metric, title):
    assert title_of(metric) == title


def test_a_number_that_lands_later_has_its_column(run):
    folder = run("a_toy")
    for path in (folder / "results").glob("*.json"):
        result = json.loads(path.read_text())
        result["metrics"] |= {"kid": 0.25, "nothing": None}
        result["metrics"]["intervals"]["kid"] = [0.2, 0.3]
        path.write_text(json.dumps(result))
    found = compare([folder], CAPTIONS)
    assert found.metrics[-1] == "kid" and "nothing" not in found.metrics
    assert page_rows(found.page(), "| system | seeds")["a_toy"]["KID"] == "0.250 (0.200 to 0.300)"


def test_the_command_says_what_it_writes(trained, tmp_path):
    lines, out = tmp_path / "captions.txt", tmp_path / "out"
    lines.write_text("a red bird.\n")
    done = CliRunner().invoke(
        app, ["compare", str(trained("a_toy")), "--out", str(out), "--captions", str(lines), "--seed", "5"]
    )
    assert done.exit_code == 0, done.output
    assert done.output.startswith((out / "compare.md").read_text().splitlines()[0]) and f"wrote {out}" in done.output
    assert json.loads((out / "compare.json").read_text())["seed"] == 5
    wrong = CliRunner().invoke(app, ["compare", str(tmp_path / "a_toy"), "--captions", str(tmp_path / "none.txt")])
    assert isinstance(wrong.exception, InputError) and "none.txt: no such file" in str(wrong.exception)


def test_the_committed_runs_compare_and_are_painted_by_the_shipped_weights(monkeypatch):
    monkeypatch.setattr(files, "WEIGHTS", ROOT / "data" / "weights")
    found = compare()
    runs = open_all(ROOT / "figures" / "runs", "*_toy*")
    assert len(found.rows) == len({one.name for one in runs}) >= 5
    for row in found.rows:
        own = [one.result()["metrics"] for one in runs if one.name == row.name]
        assert row.numbers["toy_fd"] == over_seeds(own, "toy_fd") and len(row.seeds) == len(own)
        assert row.pictures is not None and row.painted_by == f"{row.name}: weights/{row.name}.safetensors"
        assert row.painted_by in found.sources
        assert row.costs["generator"] > 10**6 and len(row.points[0]) == 3
    assert len(found.captions) == 8 and not found.differing
    readme = (ROOT / "README.md").read_text()
    numbers = next(line for line in found.page().splitlines() if line.startswith("| one colour")).split("|")
    assert numbers[3].strip() in readme and numbers[5].strip() in readme
