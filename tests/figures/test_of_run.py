"""A run of one's own is drawn as the shipped ones are; what is no finished run is one error."""

import json
import shutil
from itertools import islice

import pytest
from PIL import Image
from typer.testing import CliRunner

from t2ilib import experiment, files, plots
from t2ilib.cli import app
from t2ilib.errors import InputError
from t2ilib.figures import of_run, recorded
from t2ilib.files import sha256
from t2ilib.sampling import load_sampler
from t2ilib.training import Run, load_recipe

TINY = {
    "model.ngf": 8,
    "model.ndf": 8,
    "model.batch_size": 8,
    "data.options": {"train": 48, "validation": 8, "test": 8},
    "training.steps": 3,
    "training.log_every": 1,
    "training.sample_every": 3,
    "training.checkpoint_every": 3,
    "training.evaluate_every": 0,
}
CHARTS, SHEETS = ("curves", "scores"), ("sheet", "text_ways", "noise_ways")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "DATA", tmp_path_factory.getbasetemp() / "data")
        list(experiment.run_recipe(load_recipe("gancls_toy", **TINY), folder))
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "mine")


def test_a_finished_run_is_drawn_with_its_own_captions(run):
    done = CliRunner().invoke(app, ["figures", "--run", str(run)], catch_exceptions=False)
    out, kept = run / "figures", (run / "samples" / "captions.txt").read_text().splitlines()
    assert done.output.split() == [str(out / f"{name}.png") for name in (*CHARTS, *SHEETS)]
    written = {f"{name}.{kind}" for name in CHARTS for kind in ("png", "pdf", "csv")}
    written |= {f"{name}.{kind}" for name in SHEETS for kind in ("png", "csv")}
    assert {path.name for path in out.iterdir()} == written | {"manifest.json"}
    rows = {name: plots.read_rows(out / f"{name}.csv") for name in (*CHARTS, *SHEETS)}
    records, drawn = Run(run).records(), [row for row in rows["scores"] if row["series"] == "D(G(z))"]
    assert [float(row["value"]) for row in drawn] == pytest.approx([one["D_fake"] for one in records], rel=1e-5)
    assert {row["panel"] for row in rows["curves"]} == {"generator", "discriminator"}
    assert [row["caption"] for row in rows["sheet"]] == kept[:6] * 4
    pairs = zip(kept[::2], kept[1::2], strict=True)
    assert [row["caption"] for row in rows["text_ways"][::8]] == [f"{first} to {last}" for first, last in pairs]
    assert [row["caption"] for row in rows["noise_ways"][::8]] == kept[:4]
    weights = run / "checkpoints" / "step_00000003.safetensors"
    assert {row["sha256"] for name in SHEETS for row in rows[name]} == {sha256(weights)}
    entries = json.loads((out / "manifest.json").read_text())
    assert {entry["by"] for entry in entries.values()} == {"t2i figures --run mine"}
    assert entries["sheet"]["sources"] == {weights.name: sha256(weights)}
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.width > 6 * 64


def test_a_run_from_before_d_was_recorded_has_no_scores(run, tmp_path):
    older = [{key: value for key, value in one.items() if key[:2] != "D_"} for one in Run(run).records()]
    (run / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in older))
    (run / "samples" / "captions.txt").write_text("a red bird.\n\na blue bird.\na green bird.\n")
    drawn = list(of_run.draw(run, tmp_path / "out"))
    assert drawn == [tmp_path / "out" / f"{name}.png" for name in ("curves", *SHEETS)]
    assert not (run / "figures").exists()
    assert len(plots.read_rows(tmp_path / "out" / "text_ways.csv")) == 8  # one pair of three captions


@pytest.mark.parametrize(("name", "probability"), [("gancls_toy", True), ("wgan_toy", False), ("dfgan_toy", False)])
def test_what_d_says_is_a_probability_where_its_system_says_so(name, probability, run, tmp_path, monkeypatch):
    told, said = [], recorded.said
    monkeypatch.setattr(of_run, "load_sampler", lambda weights: load_sampler(name, "cpu"))
    monkeypatch.setattr(recorded, "said", lambda records, of: told.append(of) or said(records, of))
    list(islice(of_run.draw(run, tmp_path / "out"), len(CHARTS)))
    assert told == [probability]


def test_what_is_no_finished_run_is_named_before_anything_is_drawn(run, tmp_path):
    def refused(told, *more):
        done = CliRunner().invoke(app, ["figures", *more, "--out", str(tmp_path / "out")])
        assert isinstance(done.exception, InputError) and told in str(done.exception)
        assert not (tmp_path / "out").exists()

    refused("not a run folder (no config.yaml)", "--run", str(tmp_path))
    refused("name a run of yours (--run)", "budget")
    refused("leave budget out", "budget", "--run", str(run))
    (run / "samples" / "captions.txt").write_text("a red bird.\n")
    refused("captions.txt: 1 captions; write there", "--run", str(run))
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("steps: 3", "steps: 9"))
    refused(f"no finished run (3 of 9 steps are done); go on with it: t2i resume {run}", "--run", str(run))
    shutil.rmtree(run / "checkpoints")
    (run / "config.yaml").write_text(config)
    (run / "samples" / "captions.txt").write_text("a red bird.\na blue bird.\n")
    refused("checkpoint", "--run", str(run))


def test_any_caption_is_drawn_as_it_is_written(run, tmp_path, recwarn):
    captions = [r"a $\frac{1 bird$ for $5", "a \N{BIRD} and a red\tone", "a red bird. " * 1000, "a blue bird."]
    (run / "samples" / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    list(of_run.draw(run, tmp_path / "out"))
    assert [row["caption"] for row in plots.read_rows(tmp_path / "out" / "sheet.csv")][:4] == [
        c.strip() for c in captions
    ]
    assert not [told for told in recwarn if "Glyph" in str(told.message)]


def test_runs_that_did_not_always_record_d_show_what_they_have(run, tmp_path):
    first, *rest = Run(run).records()
    older = {key: value for key, value in first.items() if key[:2] != "D_"}
    (run / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in (older, *rest)))
    list(of_run.draw(run, tmp_path / "out"))
    rows = plots.read_rows(tmp_path / "out" / "scores.csv")
    assert {float(row["images"]) for row in rows} == {one["images"] for one in rest}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": {}}, "line 2: images = {} is no number"),
        ({"generator/l1": "x"}, "line 2: generator/l1 = 'x' is no number"),
        ({"discriminator/real": None}, "line 2: discriminator/real = None is no number"),
        ({"D_fake": None}, "line 2: D_fake = None is no number"),
        ({"step": 10**400}, "is no number"),
    ],
)
def test_records_that_cannot_be_drawn_are_named(run, tmp_path, change, told):
    rows = Run(run).records()
    rows[1] |= change
    (run / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(InputError) as raised:
        list(of_run.draw(run, tmp_path / "out"))
    assert "records.jsonl" in str(raised.value) and told in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_records_without_losses_and_folders_that_are_none_are_named(run, tmp_path):
    path = run / "checkpoints" / "step_00000003.safetensors"
    with pytest.raises(InputError, match=r"step_00000003.safetensors: no run folder"):
        list(of_run.draw(path))
    with pytest.raises(InputError, match="results: holds what evaluations found"):
        list(of_run.draw(run, run / "samples" / ".." / "results"))
    rows = [{key: value for key, value in one.items() if "/" not in key} for one in Run(run).records()]
    (run / "records.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    with pytest.raises(InputError, match=r"records.jsonl: line 1 has no loss"):
        list(of_run.draw(run, tmp_path / "out"))


@pytest.mark.parametrize("content", ["not json", "[1]", '{"curves": 3}'])
def test_a_damaged_manifest_is_named(run, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest.json: damaged .*; remove it"):
        list(of_run.draw(run, tmp_path / "out"))
