"""train.ipynb and evaluate.ipynb as papermill runs them: tiny recipes from start to results, continued, failing."""

import json
import re
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from t2ilib.encoders import load_encoder
from t2ilib.errors import InputError
from t2ilib.metrics.results import table
from t2ilib.provenance import told_versions
from t2ilib.training import Run, load_recipe
from t2ilib.training import launch as launching

ROOT = Path(__file__).resolve().parent.parent
CLIP = {
    "task": "clip",
    "about": "a few steps, for the tests",
    "model": {"warmup": 1, "batch_size": 8, "embed_dim": 16, "image_size": 32, "image_width": 64}
    | {"image_layers": 1, "text_width": 64, "text_layers": 1},
    "data": {"source": "toy", "size": 32, "options": {"train": 48, "validation": 8, "test": 120}},
    "training": {"steps": 4, "log_every": 1, "checkpoint_every": 2},
}
RECIPE = {
    "task": "gancls",
    "about": "a few steps, for the tests",
    "model": {"ngf": 4, "ndf": 4, "projected_dim": 8, "noise_dim": 8, "batch_size": 8},
    "data": CLIP["data"],
    "encoders": {
        "text": {
            "name": "contrastive",
            "options": {"training.steps": 2, "model.words_first": 1, "model.stem": []}
            | {f"model.{key}": value for key, value in CLIP["model"].items()},
        }
    },
    "training": {"steps": 4, "log_every": 1, "sample_every": 2, "checkpoint_every": 2},
}
DRAWN = {"image/png", "image/jpeg"}  # curves or bars, pictures


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the tiny recipes, and in which kernels and their children keep data and runs."""
    folder = tmp_path_factory.mktemp("papermill")
    for name, recipe in {"tiny": RECIPE, "clip": CLIP}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T2I_DATA", str(folder / "data"))
        patch.setenv("T2I_RUNS", str(folder / "runs"))
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


def execute(name: str, place: Path, drawn: set[str] = DRAWN, **parameters) -> str:
    """Run a notebook, check which kinds of pictures it shows, and return what it printed, tables as Markdown."""
    copy = place / f"{name}.ipynb"
    papermill.execute_notebook(ROOT / "notebooks" / f"{name}.ipynb", copy, parameters, progress_bar=False)
    outputs = [output for cell in nbformat.read(copy, as_version=4).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert {kind for output in outputs for kind in output.get("data", {}) if kind.startswith("image")} == drawn
    return "".join(output.get("text", "") + output.get("data", {}).get("text/markdown", "") for output in outputs)


@pytest.fixture(scope="module")
def trained(place) -> str:
    return execute("train", place, recipe=str(place / "tiny.yaml"))


def test_training_leaves_a_whole_run(trained, place):
    run = Run.open(place / "runs" / "tiny")
    assert [record["step"] for record in run.records()] == [1, 2, 3, 4]
    assert [path.stem for path in run.checkpoints()] == ["step_00000002", "step_00000004"]
    assert "4 steps, 32 pictures" in trained
    assert re.findall(r"step +(\d) +discriminator", trained) == ["1", "2", "3", "4"]
    assert not launching.running(run)


def test_evaluation_prints_and_keeps_the_numbers(trained, place):
    out = place / "results"
    text = execute("evaluate", place, weights=str(place / "runs" / "tiny"), n=110, out=str(out))
    (path,) = out.glob("*.json")
    result = json.loads(path.read_text())
    accuracy = result["metrics"]["attribute_accuracy"]
    shown = re.search(r"attribute_accuracy +(\S+) +(\S+) to (\S+) +(\S+) +(\S+) +(\S+)", text).groups()
    plain, real = (result["metrics"][name]["attribute_accuracy"] for name in ("one_colour", "real"))
    numbers = accuracy["mentioned"], *accuracy["interval"], plain["mentioned"], real["mentioned"], accuracy["chance"]
    assert shown == tuple(f"{value:.3f}" for value in numbers)
    assert real["mentioned"] > 0.9
    told = result["protocol"]
    assert told["n"] == 110
    assert "\n".join(table(path)) in text and told["clip_score"] in text
    assert f"commit {told['commit']}, {told_versions(told)}, {told['seconds']} s\n" in text
    assert str(place) not in text


def test_more_steps_continue_the_run(trained, place):
    run = Run.open(place / "runs" / "tiny")
    before = run.records()
    text = execute("train", place, recipe=str(place / "tiny.yaml"), steps=6)
    assert run.records()[:4] == before
    assert [record["step"] for record in run.records()][4:] == [5, 6]
    assert "6 steps, 48 pictures" in text


@pytest.fixture(scope="module")
def trained_clip(place) -> str:
    changes = json.dumps({"training.seed": 3})
    return execute("train", place, {"image/png"}, recipe=str(place / "clip.yaml"), overrides=changes)


def test_an_encoder_is_trained_and_can_be_loaded(trained_clip, place):
    run = Run.open(place / "runs" / "clip")
    assert run.recipe.training.seed == 3
    assert re.findall(r"step +(\d) +accuracy +\S+ +contrastive", trained_clip) == ["1", "2", "3", "4"]
    assert load_encoder(str(run.folder)).sentence_dim == CLIP["model"]["embed_dim"]
    measured = run.records()[-1]["metric/full"]
    assert re.search(r"\nfull +(\S+)", trained_clip)[1] == f"{measured:.3f}"


def test_an_encoder_is_evaluated(trained_clip, place):
    text = execute("evaluate", place, set(), weights=str(place / "runs" / "clip"), out=str(place / "clip_results"))
    (path,) = (place / "clip_results").glob("*.json")
    result = json.loads(path.read_text())
    assert result["protocol"]["encoder"] == load_encoder(str(place / "runs" / "clip")).fingerprint
    assert re.search(r"full +(\S+) +(\S+)", text).groups() == (f"{result['metrics']['full']:.3f}", "0.010")
    assert result["protocol"]["pictures"] == 100
    assert "\n".join(table(path)) in text and f", {result['protocol']['seconds']} s\n" in text


def test_last_words_of_a_failed_child_surface(place):
    with pytest.raises(PapermillExecutionError) as caught:
        execute("train", place, recipe=str(place / "tiny.yaml"), folder=str(place / "bad"), data="no_such_folder")
    assert "training ended at step 0 of 4" in str(caught.value)
    assert "error: no_such_folder: no such source" in str(caught.value)


# ---- the launcher, with a sleeping child ---------------------------------------------------------------------------


@pytest.fixture
def sleeping(tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "command", lambda run, processes: ["sleep", "60"])
    run, child = launching.launch(load_recipe("gancls_toy"), tmp_path / "run")
    yield run, child
    child.kill()
    child.wait()


def test_second_process_is_refused_until_the_first_is_stopped(sleeping):
    run, child = sleeping
    assert launching.running(run)
    with pytest.raises(InputError, match="is being trained already"):
        launching.launch(load_recipe("gancls_toy"), run.folder)
    assert launching.stop(run)
    assert child.wait(timeout=10) < 0
    assert not launching.running(run)
    assert not launching.stop(run)


def test_relative_folder_is_the_callers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launching, "command", lambda run, processes: ["ls", str(run.folder)])
    run, child = launching.launch(load_recipe("gancls_toy"), "here")
    assert child.wait(timeout=10) == 0
    assert "config.yaml" in launching.last_lines(run)
    assert run.folder == tmp_path / "here"


def test_last_lines_leave_out_progress_bars(tmp_path):
    log = "one\n  0%|    | 0/4 [00:00<?, ?step/s]\r 50%|##  | 2/4 [00:01<00:01, 2.0step/s]\ntwo\nthree\n"
    (tmp_path / launching.LOG).write_text(log)
    assert launching.last_lines(Run(tmp_path), count=2) == "two\nthree"
    assert launching.last_lines(Run(tmp_path / "absent")) == ""
