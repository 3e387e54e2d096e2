"""Which runs are seeds of one system, in what they differ, and whose weights paint."""

import shutil

import pytest

from t2ilib import files
from t2ilib.comparison import open_finished
from t2ilib.errors import InputError
from t2ilib.sampling import export
from t2ilib.side_by_side.systems import differing_settings, open_systems, settings_of, sources_of, weights_of
from t2ilib.training import Run


def opened(*folders, different=False, split="test"):
    return open_systems(folders, split, different=different)


def shape(systems):
    return [(system.name, [one.run.recipe.training.seed for one in system.runs]) for system in systems]


def test_seeds_are_put_together_whatever_the_order_and_folder(run, tmp_path):
    folders = [run(name) for name in ("b_toy_seed1", "a_toy", "b_toy")]
    expected = [("a_toy", [0]), ("b_toy", [0, 1])]
    assert shape(opened(*folders)) == shape(opened(*reversed(folders))) == shape(opened(tmp_path)) == expected
    assert shape(opened(tmp_path, *folders)) == expected  # a run named twice counts once


def test_the_runs_of_a_study_are_seeds_and_a_sweep_is_not(run):
    study = [run(f"plain_{seed}", seed=seed) for seed in range(3)]
    sweep = [run(f"sweep_{number}", seed=0, model={"lr": 1e-4 * (number + 1)}) for number in range(2)]
    assert shape(opened(*study, *sweep)) == [("plain", [0, 1, 2]), ("sweep_0", [0]), ("sweep_1", [0])]


def test_a_name_that_says_too_much_is_refused(run):
    with pytest.raises(InputError, match="x_toy_seed1: is no seed of x_toy, its recipe is another"):
        opened(run("x_toy"), run("x_toy_seed1", model={"lr": 0.5}))


def test_two_folders_of_one_name_are_refused(run, tmp_path):
    first = run("x_toy")
    shutil.copytree(first, tmp_path / "elsewhere" / "x_toy")
    with pytest.raises(InputError, match="x_toy: has the seed of another run of x_toy"):
        opened(first, tmp_path / "elsewhere" / "x_toy")


def test_a_run_that_another_judge_measured_is_refused(run):
    with pytest.raises(InputError, match="judge_encoder, test: a judges, b another; runs of different budgets"):
        opened(run("b", judge_encoder="another"), run("a"))


def test_only_the_split_that_is_compared_has_to_be_measured_alike(run):
    first, second = run("a"), run("b")
    run("b", splits=("validation",), judge_encoder="another")
    assert len(opened(first, second)) == 2
    with pytest.raises(InputError, match="judge_encoder, validation"):
        opened(first, second, split="validation")
    with pytest.raises(InputError, match=r"no results of the split train; t2i evaluate"):
        opened(first, split="train")


def test_different_budgets_are_told_setting_by_setting(run):
    folders = [run("a"), run("b", images=1280, size=32, judge_encoder="another", n=50)]
    with pytest.raises(InputError, match="pictures seen: a 640, b 1280"):
        opened(*folders)
    systems = opened(*folders, different=True)
    assert set(differing_settings(systems)) == {"pictures seen", "data.size", "judge_encoder", "n"}
    assert [settings_of(system)["data.size"] for system in systems] == ["64", "32"]
    assert settings_of(systems[1])["pictures seen"] == "1,280" and settings_of(systems[0])["source.name"] == "toy birds"


def test_what_one_run_does_not_say_is_one_difference(run):
    systems = opened(run("a"), run("b", source=None), run("c", source={"name": "others"}), different=True)
    assert differing_settings(systems) == ["source"]
    assert [settings_of(system)["source"] for system in systems] == ["given", "none", "given"]
    assert differing_settings([systems[0], systems[2]]) == ["source.name"]


def test_seeds_of_one_system_have_one_budget_even_where_systems_may_differ(run):
    with pytest.raises(InputError, match="pictures seen: a_toy 640, a_toy_seed1 1280"):
        opened(run("a_toy"), run("a_toy_seed1", images=1280), different=True)


@pytest.mark.parametrize("damage", ["config.yaml", "records.jsonl", "results/evaluation-0020-test.json"])
def test_a_damaged_file_is_named(run, damage):
    folder = run("a")
    (folder / damage).write_text("{\n")
    with pytest.raises(InputError, match=rf"a/{damage}: ".replace(".", r"\.")):
        opened(folder)


def test_what_is_no_run_of_a_system_is_named(run, tmp_path):
    with pytest.raises(InputError, match="not a run folder"):
        opened(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no finished run"):
        opened(tmp_path / "empty")
    folder = run("clip")
    config = (folder / "config.yaml").read_text().replace("task: gancls", "task: clip")
    (folder / "config.yaml").write_text(config)
    with pytest.raises(InputError, match="clip: clip paints nothing; name runs of gancls"):
        opened(folder)


def test_weights_are_those_of_the_measured_step(trained, run):
    folder = trained("a_toy")
    checkpoint = folder / "checkpoints" / "step_00000020.safetensors"
    assert weights_of(open_finished(folder)) == checkpoint
    checkpoint.rename(checkpoint.with_name("step_00000010.safetensors"))
    assert weights_of(open_finished(folder)) is None
    assert weights_of(open_finished(run("b_toy"))) is None


def test_shipped_weights_paint_for_a_run_of_their_name_and_recipe(trained, run):
    folder = trained("a_toy")
    shipped = files.WEIGHTS / "a_toy.safetensors"
    export(Run.open(folder), shipped, "made by a test")
    shutil.rmtree(folder / "checkpoints")
    assert weights_of(open_finished(folder)) == shipped
    (system,) = opened(folder)
    assert "a_toy: shipped/a_toy.safetensors" in sources_of([system])
    other = trained("b_toy", size=32)
    shutil.rmtree(other / "checkpoints")
    shutil.copy(shipped, files.WEIGHTS / "b_toy.safetensors")
    assert weights_of(open_finished(other)) is None  # of another recipe
    shipped.write_bytes(b"torn")
    with pytest.raises(InputError, match=r"a_toy\.safetensors: not a whole checkpoint"):
        weights_of(open_finished(folder))
