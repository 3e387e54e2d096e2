"""Runs side by side: only of one budget, over all their seeds, from their own files."""

import json
from dataclasses import asdict

import pytest
import yaml

from t2ilib import comparison, plots, tables
from t2ilib.comparison import chance, newest_result, open_all, open_finished, over_seeds, same_budget, shown
from t2ilib.errors import InputError
from t2ilib.training import DataSettings, Recipe, TrainingSettings

PROTOCOL = {
    "text_encoder": "reads",
    "judge_encoder": "judges",
    "extractor": "toy-judge",
    "n": 100,
    "seed": 0,
    "truncation": None,
    "candidates": 100,
    "version": 2,
    "source": {"name": "toy birds"},
    "reference_count": 100,
    "real_size": 64,
    "diversity_captions": 32,
    "per_caption": 8,
    "step": 20,
}


def metrics(value: float) -> dict:
    interval = [value - 0.1, value + 0.1]
    told = {"mentioned": value, "interval": interval, "chance": 0.2}
    told["composition"] = {"accuracy": value / 2, "interval": [0.0, value], "chance": 1 / 64}
    found = {"attribute_accuracy": told, "toy_fd": 100 * value, "clip_score": 50.0, "diversity": 0.5}
    found["r_precision"] = {"mean": value / 4, "interval": [0.0, 1.0], "chance": 0.01}
    return found | {"intervals": {"toy_fd": [90 * value, 110 * value], "clip_score": [49.0, 51.0]}}


@pytest.fixture
def run(tmp_path):
    """Make a finished run's folder; `changes` go into its protocol, `images` is what it saw."""

    def make(name, value=0.5, images=640, *, splits=("test", "validation"), step=20, size=64, **changes):
        folder = tmp_path / name
        (folder / "results").mkdir(parents=True, exist_ok=True)
        seed = changes.get("seed", int(name.partition("_seed")[2] or 0))
        model, hours, start = changes.pop("model", {}), changes.pop("hours", 1.0), changes.pop("start", "")
        recipe = Recipe(
            "gancls",
            model=model,
            data=DataSettings(size=size),
            training=TrainingSettings(steps=step, seed=seed, log_every=10, start=start),
        )
        (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
        (folder / "records.jsonl").write_text(
            json.dumps({"step": step, "images": images, "seconds": 3600.0 * hours}) + "\n"
        )
        for split in splits:
            better = value + (0.2 if split == "validation" else 0)  # species that training showed
            found = metrics(better) | {"real": metrics(0.9), "one_colour": metrics(0.6)}
            told = {**PROTOCOL, "step": step, **changes, "reference_split": [split], "hardware": "two cores"}
            told["date"] = f"2026-11-21T00:00:{step:02d}"
            path = folder / "results" / f"evaluation-{step:04d}-{split}.json"
            path.write_text(json.dumps({"metrics": found, "protocol": told}))
        return folder

    return make


def test_the_last_step_counts_on_each_split(run):
    run("system", 0.3, step=10)
    found = open_finished(run("system", 0.5, step=20, splits=("test",)))
    assert found.result()["metrics"]["attribute_accuracy"]["mentioned"] == 0.5
    with pytest.raises(InputError, match=r"no results of the split validation; t2i evaluate .*system --split valid"):
        found.result("validation")  # that of step 10 is of another network
    (found.run.folder / "records.jsonl").write_text('{"step": 30, "images": 960, "seconds": 1.0}\n')
    with pytest.raises(InputError, match="no results of the last step"):
        open_finished(found.run.folder)


def test_a_run_without_results_is_named(run):
    folder = run("system", splits=())
    with pytest.raises(InputError, match=r"system/results: no results of the last step; evaluate the run"):
        open_finished(folder)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": 641}, "pictures seen: a 640, b 641"),
        ({"text_encoder": "hears"}, "text_encoder, test: a reads, b hears"),
        ({"size": 32}, "data"),
        ({"start": "dfgan_start"}, "start: a random, b dfgan_start"),
        ({"candidates": 50}, "candidates"),
        ({"splits": ("test",)}, "validation"),
        ({"judge_encoder": "x"}, "judge_encoder"),
        ({"extractor": "x"}, "extractor"),
        ({"n": 99}, "n, test: a 100, b 99"),
        ({"truncation": 0.8}, "truncation"),
        ({"version": 1}, "version"),
        ({"source": {"name": "others"}}, "source"),
        ({"reference_count": 7}, "reference_count"),
        ({"per_caption": 2}, "per_caption"),
        ({"real_size": 32}, "real_size"),
        ({"resize": "clean"}, "resize"),
        ({"protocol": "cub_clean"}, "protocol, test: a None, b cub_clean"),
        ({"reference": "train"}, "reference"),
        ({"augmentation": {"count": 9}}, "augmentation"),
        ({"side": 224}, "side"),
        ({"measures": {"fid": {"extractor": "x"}}}, "measures, test"),
        ({"diversity_captions": 2}, "diversity_captions"),
    ],
)
def test_runs_of_different_budgets_do_not_compare(run, changes, named):
    runs = [open_finished(run("a")), open_finished(run("b", **changes))]
    with pytest.raises(InputError, match=f"{named}.*do not compare"):
        same_budget(runs)


def test_what_a_measure_found_beside_its_number_does_not_part_runs(run):
    told = [{"fid": {"extractor": "x", "resize": "none", "std_over_splits": value}} for value in (0.1, 0.2)]
    same_budget([open_finished(run(name, measures=one)) for name, one in zip("ab", told, strict=True)])


def test_weights_to_begin_with_are_known_by_their_content(run):
    def begun(name, start, digest):
        folder = run(name, start=start)
        known = {"source": start, "step": 400, "sha256": digest}
        (folder / "environment.json").write_text(json.dumps({"hardware": "two cores", "start": known}))
        return open_finished(folder)

    first, moved, other = begun("a", "here", "ab1"), begun("b", "there", "ab1"), begun("c", "here", "cd2")
    assert same_budget([first, moved])["start"] == "step 400, SHA-256 ab1"
    with pytest.raises(InputError, match="start: a step 400, SHA-256 ab1, c step 400, SHA-256 cd2; runs of different"):
        same_budget([first, other])


def test_each_split_has_to_be_measured_alike(run):
    first, second = run("a"), run("b")
    run("b", splits=("validation",), judge_encoder="another")
    with pytest.raises(InputError, match="judge_encoder, validation: a judges, b another"):
        same_budget([open_finished(first), open_finished(second)])


def test_seeds_of_one_system_share_its_name_and_its_budget(run):
    runs = [open_finished(run(name, seed=seed)) for seed, name in enumerate(("x_toy", "x_toy_seed1", "x_toy_seed12"))]
    assert {one.name for one in runs} == {"x_toy"}
    assert same_budget(runs)["pictures seen"] == 640


def test_one_name_is_one_system_with_different_seeds(run):
    first = open_finished(run("x_toy"))
    other = open_finished(run("x_toy_seed1", model={"lr": 0.5}))
    with pytest.raises(InputError, match="x_toy_seed1: is no seed of x_toy, its recipe is another"):
        same_budget([first, other])
    again = open_finished(run("x_toy_seed2", seed=0))
    with pytest.raises(InputError, match="x_toy_seed2: has the seed of another run of x_toy"):
        same_budget([first, again])
    with pytest.raises(InputError, match="no runs to compare"):
        same_budget([])


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"protocol": {}, "metrics": {}}', '{"protocol": []}', "null"])
def test_a_damaged_results_file_is_named(run, text):
    folder = run("system")
    (folder / "results" / "evaluation-x.json").write_text(text)
    with pytest.raises(InputError, match=r"evaluation-x\.json: no whole results file"):
        open_finished(folder)


def test_of_two_evaluations_in_one_second_the_later_counts(run):
    folder = run("system", 0.5, splits=("test",))
    path = next((folder / "results").glob("*.json"))
    result = json.loads(path.read_text())
    result["metrics"]["toy_fd"] = 999.0
    path.with_name(f"{path.stem}-2.json").write_text(json.dumps(result))
    assert open_finished(folder).result()["metrics"]["toy_fd"] == 999.0


def test_chapters_show_the_last_step_that_was_measured(run):
    folder = run("system", 0.3, step=10)
    run("system", 0.5, step=20)
    (folder / "records.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in (10, 20, 30)))
    assert newest_result(folder)["protocol"]["step"] == 20
    (folder / "records.jsonl").write_text(json.dumps({"step": 15}) + "\n")
    with pytest.raises(InputError, match="no results of any step that it recorded"):
        newest_result(folder)


def test_a_number_over_seeds_reaches_as_far_as_their_intervals():
    found = [metrics(0.5), metrics(0.6)]
    assert over_seeds(found, "attribute_accuracy") == pytest.approx((0.55, 0.4, 0.7))
    assert over_seeds(found, "composition") == pytest.approx((0.275, 0.0, 0.6))
    assert over_seeds(found, "toy_fd") == pytest.approx((55, 45, 66))
    assert over_seeds(found, "diversity") == (0.5, 0.5, 0.5)
    assert over_seeds([{"diversity": 0.4}, {"diversity": 0.6}], "diversity") == (0.5, 0.5, 0.5)  # seeds are no interval
    falling = over_seeds([metrics(0.6), metrics(0.5)], "attribute_accuracy")
    assert falling == pytest.approx((0.55, 0.4, 0.7))
    assert over_seeds(found, "clip_fd") is None and over_seeds([], "toy_fd") is None
    assert over_seeds([found[0], {"toy_fd": None}], "toy_fd") is None


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, ""),
        ((0.5, 0.5, 0.5), "0.500"),
        ((3.5, 3.0, 4.0), "3.5 (3.0 to 4.0)"),
        ((0.55, 0.4, 0.7), "0.550 (0.400 to 0.700)"),
        ((55, 45, 66), "55.0 (45.0 to 66.0)"),
    ],
)
def test_how_numbers_are_shown(number, text):
    assert shown(number) == text


def test_the_table_joins_seeds_beside_what_needs_no_network(run, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("<!-- results: written by t2i figures results -->\n<!-- end of results -->\n")
    monkeypatch.setattr(tables, "RUNS", tmp_path)
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    monkeypatch.setattr(tables, "README", page)
    run("b_toy", 0.6)
    run("b_toy_seed1", 0.5, hours=2.0)
    run("a_toy", 0.7)
    tables.results("results")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.read_text().splitlines()[1:-1]]
    assert [row[0] for row in rows[2:]] == ["chance", "one colour", "real pictures", "a_toy", "b_toy"]
    table = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    assert table["b_toy"]["attributes"] == "0.550 (0.400 to 0.700)" and table["b_toy"]["seeds"] == "2"
    assert table["b_toy"]["hours"] == "1.50" and table["b_toy"]["diversity"] == "0.500"
    assert table["b_toy"]["composition, seen species"].startswith("0.375 (")
    assert table["chance"]["R-precision"] == "0.010" and table["chance"]["composition, seen species"] == "0.016"
    assert table["a_toy"]["composition"] == "0.350 (0.000 to 0.700)" and table["a_toy"]["hours"] == "1.00"
    assert table["chance"]["attributes"] == "0.200" and table["chance"]["composition"] == "0.016"
    assert table["real pictures"]["toy FD"].startswith("90.0") and table["one colour"]["toy FD"].startswith("60.0")
    run("c_toy", images=1)
    with pytest.raises(InputError, match="pictures seen: a_toy 640, c_toy 1; runs of different budgets do not compare"):
        tables.results("results")


def test_photographs_of_one_budget_stand_beside_real_ones(run, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("<!-- photographs: written by t2i figures photographs -->\n<!-- end of photographs -->\n")
    for name, value in {"RUNS": tmp_path, "FOLDER": tmp_path, "README": page}.items():
        monkeypatch.setattr(tables, name, value)
    run("a_cub100", 0.5, splits=("test",))
    run("b_cub100", 0.7, splits=("test",), hours=2.0)
    run("a_cub100_seed1", 0.6, splits=("test",), step=21, text_encoder="another", judge_encoder="a third")
    tables.photographs("photographs")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.read_text().splitlines()[1:-1]]
    table = [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]
    names = ["chance", "real pictures", "a_cub100", "b_cub100", "real pictures", "a_cub100_seed1"]
    assert [row["run"] for row in table] == names
    assert [row["CLIPs"] for row in table] == ["", "a", "a", "a", "b", "b"]  # scores of two judges do not mix
    assert [row["hours"] for row in table] == ["", "", "1.00", "2.00", "", "1.00"]
    assert [row["R-precision"][:5] for row in table] == ["0.010", "0.225", "0.125", "0.175", "0.225", "0.150"]
    run("c_cub100", images=1, splits=("test",))
    with pytest.raises(InputError, match="pictures seen: a_cub100 640, c_cub100 1"):
        tables.photographs("photographs")


@pytest.fixture
def clip(tmp_path, monkeypatch):
    """Make the folder of a small CLIP's run; NAME_seedN has that seed."""
    for name, value in {"RUNS": tmp_path, "FOLDER": tmp_path}.items():
        monkeypatch.setattr(tables, name, value)

    def make(name, value, steps=20, seed=None, **model):
        (tmp_path / name / "results").mkdir(parents=True)
        seed = int(name.partition("_seed")[2] or 0) if seed is None else seed
        recipe = Recipe("clip", model=model, training=TrainingSettings(steps=steps, seed=seed))
        found = {"full": 0.9, "random": value, "average": 0.5, "r_precision": value / 2}
        found |= {"exchanged/colour": value + 0.1, "asked/colour": 37}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(recipe)))))
        (tmp_path / name / "records.jsonl").write_text(json.dumps({"step": steps}) + "\n")
        told = {"metrics": found, "protocol": {"step": steps, "reference_split": recipe.data.reference}}
        (tmp_path / name / "results" / "evaluation.json").write_text(json.dumps(told))

    return make


def test_small_clips_stand_side_by_side_seed_by_seed(clip, tmp_path):
    clip("clip_cub100", 0.4, words_first=5, parts=True)
    clip("clip_cub100_seed1", 0.6, words_first=5, parts=True)
    clip("clip_cub100_plain", 0.2, words_first=0, parts=False)
    tables.readers("readers")
    titles = "small CLIP, each seed | a caption finds its picture | all its captions | a picture finds its caption"
    assert (tmp_path / "readers.md").read_text().splitlines() == [
        f"| {titles} | colour |",
        "|---|---|---|---|---|",
        "| words first | 0.400, 0.600 | 0.500, 0.500 | 0.200, 0.300 | 0.500, 0.700 |",
        "| contrast alone | 0.200 | 0.500 | 0.100 | 0.300 |",
        "| asked | 100 | 100 | 1,000 | 37 |",
    ]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"name": "clip_cub100_plain", "words_first": 0, "parts": False, "lr": 2e-3}, "in more than words and seed"),
        ({"name": "clip_cub100_plain", "words_first": 0, "parts": False, "steps": 10}, "in more than words and seed"),
        ({"name": "clip_cub100_seed1", "words_first": 9, "parts": True}, "is no seed of clip_cub100"),
        ({"name": "clip_cub100_twice", "words_first": 5, "parts": True}, "one of its seeds is there twice"),
    ],
)
def test_small_clips_that_do_not_compare(clip, other, message):
    clip("clip_cub100", 0.4, words_first=5, parts=True)
    clip(value=0.2, **other)
    with pytest.raises(InputError, match=message):
        tables.readers("readers")


def test_no_small_clip_at_all(clip):
    with pytest.raises(InputError, match=r"no run clip_cub100\*"):
        tables.readers("readers")


def test_the_runs_of_the_readme_had_one_budget():
    runs = open_all(tables.RUNS, "*_toy*")
    budget = same_budget(runs)
    assert len(runs) >= 4 and budget["n, test"] == 1000
    assert budget["text_encoder, test"] != budget["judge_encoder, test"]
    assert all(set(one.results) >= {comparison.HELD_OUT, comparison.SEEN_SPECIES} for one in runs)


def test_progress_draws_a_line_per_seed_and_names_each_system_once():
    records = [{"images": 1000 * k, "seconds": 60.0 * k, "metric/toy_fd": 9.0 - k} for k in (1, 2, 3)]
    runs = {"a": [records, records[:2]], "b": [records]}
    figure = plots.progress(
        runs, {"toy FD": "metric/toy_fd"}, {"thousands": ("images", 1e3), "minutes": ("seconds", 60)}
    )
    panels = figure.get_axes()
    assert len(panels) == 2 and [axes.get_xlabel() for axes in panels] == ["thousands", "minutes"]
    for axes in panels:
        assert [list(line.get_xdata()) for line in axes.get_lines()] == [[1, 2, 3], [1, 2], [1, 2, 3]]
        assert len({line.get_color() for line in axes.get_lines()}) == 2
        assert [line.get_linestyle() for line in axes.get_lines()] == ["-", "--", "-"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "seed 1"]


def changed(folder, part, key, value):
    """Set or remove one entry of every results file of a run."""
    for path in (folder / "results").glob("*.json"):
        result = json.loads(path.read_text())
        result[part].pop(key, None)
        if value is not None:
            result[part][key] = value
        path.write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("part", "key", "value", "named"),
    [
        ("protocol", "version", 99, r"measured by version 99, newer than \d+ here; update"),
        ("protocol", "version", "two", "version = 'two'"),
        ("protocol", "reference_split", None, "reference_split = None"),
        ("protocol", "reference_split", [1], "reference_split holds what is no name"),
        ("protocol", "date", 7, "date = 7"),
        ("protocol", "step", [20], r"step = \[20\]"),
        ("metrics", "toy_fd", "low", "metrics.toy_fd is no number"),
        ("metrics", "attribute_accuracy", {"mentioned": [0.1]}, "metrics.attribute_accuracy.mentioned is no number"),
    ],
)
def test_results_that_say_what_cannot_be_are_named(run, part, key, value, named):
    folder = run("system")
    changed(folder, part, key, value)
    with pytest.raises(InputError, match=rf"system/results/evaluation-.*\.json: .*{named}") as caught:
        open_finished(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b'{"metrics": {}, "metrics": {}}'])
def test_results_files_of_any_damage_are_named(run, content):
    folder = run("system")
    (folder / "results" / "evaluation-x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"evaluation-x\.json: no whole results file.*remove it and evaluate"):
        open_finished(folder)
    (folder / "results" / "evaluation-x.json").unlink()
    (folder / "results" / "evaluation-x.json").mkdir()
    with pytest.raises(InputError, match=r"evaluation-x\.json: no such file"):
        open_finished(folder)


def test_records_that_do_not_say_what_was_seen_are_named(run):
    folder = run("system")
    (folder / "records.jsonl").write_text('{"step": 20, "seconds": 1.0}\n')
    with pytest.raises(InputError, match=r"system/records\.jsonl: its last record does not say how many images"):
        same_budget([open_finished(folder), open_finished(run("other"))])


def test_chance_stands_beside_a_number_or_under_its_name():
    """Old results do not say a CLIP score's; those that do are averaged."""
    old, new, higher = metrics(0.5), metrics(0.5) | {"chance": {"clip_score": 20.0}}, {"chance": {"clip_score": 30.0}}
    assert chance([old], "clip_score") is None and chance([old], "toy_fd") is None
    assert chance([new, higher, old], "clip_score") == 25
    assert chance([new], "toy_fd") is None and chance([new], "r_precision") == 0.01
    assert chance([new], "composition") == 1 / 64 and chance([{"attribute_accuracy": None}], "composition") is None
