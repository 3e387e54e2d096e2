"""What a run folder says of itself: how recipes differ, what is done, what is gone, what is damaged."""

import os
import resource
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_loop import SETTINGS, run_in
from tiny import SmallBatches, small

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run, train
from t2ilib.training import run as module
from t2ilib.training.checkpoints import read_checkpoint
from t2ilib.training.lock import writing
from t2ilib.training.recipe import TrainingSettings
from t2ilib.training.run import differences

ABOUT = {"seconds": 1.0, "skipped": 0, "drawn": 1}


def begun(folder, steps=3, recipe=None, every=1):
    """A run of `steps` steps with records and checkpoints, without a network."""
    settings = TrainingSettings(steps=10, log_every=1, sample_every=10, checkpoint_every=every)
    run = Run.create(folder, recipe or Recipe("gancls", training=settings))
    for step in range(1, steps + 1):
        if step % every == 0:
            run.save(step, {"x": torch.full((3,), float(step)), "optimizer.g.0.step": torch.ones(1)}, ABOUT)
        run.append({"step": step})
    return run


def test_another_recipe_is_told_key_by_key(tmp_path):
    run = begun(tmp_path)
    other = run.recipe.override(**{"training.seed": 1, "data.options": {"train": 9}, "data.flip": False})
    with pytest.raises(InputError) as error:
        Run.create(tmp_path, other)
    told = str(error.value)
    assert "training.seed: 0 there, 1 now" in told and "data.options.train: absent there, 9 now" in told
    assert "data.flip: True there, False now" in told and "--set" in told and "\n" not in told
    assert run.recipe.training.seed == 0 and len(run.checkpoints()) == 2


def test_many_differences_and_long_values_stay_one_short_line(tmp_path):
    run = begun(tmp_path)
    other = run.recipe.override(model={f"key{i}": "x\n" * 500 for i in range(40)})
    with pytest.raises(InputError, match="and 35 more") as error:
        Run.create(tmp_path, other)
    assert len(str(error.value)) < 1500 and "\n" not in str(error.value)


values = st.recursive(
    st.integers() | st.text(max_size=5) | st.booleans(),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(values, values)
def test_recipes_differ_exactly_where_their_values_do(one, other):
    first, second = (Recipe("gancls", model={"a": value}) for value in (one, other))
    assert not differences(first, first)
    assert bool(differences(first, second)) == (one != other)


def test_an_edited_config_names_its_keys(tmp_path):
    begun(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text(config.read_text().replace("seed: 0", "seed: 7"))
    with pytest.raises(InputError, match=r"config\.yaml: says something else than .*training\.seed: 0 there, 7 now"):
        Run(tmp_path).restore()


def test_how_often_a_run_is_looked_at_may_change(tmp_path):
    run = begun(tmp_path)
    changes = {"training.evaluate_every": 0, "training.sample_every": 5, "training.checkpoint_every": 2, "about": "x"}
    assert Run.create(tmp_path, run.recipe.override(**changes)).restore()[1]["step"] == 3


@pytest.mark.parametrize("steps", [1, 2])
def test_fewer_steps_than_are_done_are_refused(tmp_path, steps):
    run = begun(tmp_path)
    with pytest.raises(
        InputError, match=rf"3 steps are done, training\.steps = {steps} are fewer; give more \(--steps"
    ):
        Run.create(tmp_path, run.recipe.override(**{"training.steps": steps}))
    assert run.recipe.training.steps == 10
    assert Run.create(tmp_path, run.recipe.override(**{"training.steps": 3})).recipe.training.steps == 3


def test_records_whose_checkpoints_are_gone_are_not_begun_over(tmp_path):
    list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)))
    shutil.rmtree(tmp_path / "checkpoints")
    before = (tmp_path / "records.jsonl").read_bytes()
    for again in (lambda: run_in(tmp_path), lambda: list(train(small(), SmallBatches(), SETTINGS, Run.open(tmp_path)))):
        with pytest.raises(InputError, match=r"checkpoints: is empty, but records\.jsonl tells of step 8; put the"):
            again()
    assert (tmp_path / "records.jsonl").read_bytes() == before


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(tmp_path):
    run = begun(tmp_path, steps=3, every=5)
    changes = {"training.checkpoint_every": 3, "training.steps": 3, "training.sample_every": 3}
    assert Run.create(tmp_path, run.recipe.override(**changes)).restore() is None
    assert run.records() == []


@pytest.mark.parametrize("damage", [lambda data: data[:-3], lambda data: b"", lambda data: b"\0" * len(data)])
def test_a_damaged_newest_checkpoint_is_passed_over_with_one_warning(tmp_path, damage, caplog):
    run = begun(tmp_path / "run")
    newest = run.checkpoints()[-1]
    newest.write_bytes(damage(newest.read_bytes()))
    assert run.newest_whole()[1]["step"] == 2
    (said,) = caplog.messages
    assert said.startswith(f"warning: {newest}: not a whole") and "_00000002" in said
    assert [path.name for path in Run.branch(run.folder, tmp_path / "new").checkpoints()] == [
        "step_00000002.safetensors"
    ]
    run.checkpoints()[0].write_bytes(b"")
    with pytest.raises(InputError, match=newest.name):
        Run.branch(run.folder, tmp_path / "third")
    assert not (tmp_path / "third").exists()


def test_who_takes_the_lock_sweeps_what_killed_writers_left(tmp_path):
    run = begun(tmp_path / "run")
    left = [run.folder / ".config.yaml.abcdefgh.part", run.folder / "checkpoints" / ".step_00000004.x.12_4567h.part"]
    kept = [run.folder / "thesis.part", run.folder / ".mine.part", tmp_path / ".a.abcdefgh.part"]
    for path in left + kept:
        path.write_bytes(b"x")
    with writing(run.folder):
        assert not any(path.exists() for path in left) and all(path.exists() for path in kept)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / kept[-1].name).touch()
    with writing(tmp_path / "new"):  # no run yet: `atomic` may be at work
        assert (tmp_path / "new" / kept[-1].name).exists()


def test_what_is_edited_while_a_run_trains_is_not_what_trained_it(tmp_path):
    run = begun(tmp_path)
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("seed: 0", "seed: 7"))
    assert read_checkpoint(run.save(4, {"x": torch.zeros(1)}, {}))[1]["recipe"]["training"]["seed"] == 0
    (tmp_path / "config.yaml").write_text("{")
    assert run.save(5, {"x": torch.zeros(1)}, {}).is_file()


def test_old_checkpoints_go_when_the_new_one_is_written(tmp_path, monkeypatch):
    run = begun(tmp_path)
    before = run.checkpoints()
    monkeypatch.setattr(module, "write_checkpoint", lambda *_: pytest.fail("no room"))
    with pytest.raises(pytest.fail.Exception):
        run.save(4, {"x": torch.zeros(1)}, {})
    assert run.checkpoints() == before and len(before) == 2


def test_a_record_is_on_the_disk_when_it_is_said_to_be(tmp_path, monkeypatch):
    run, synced = begun(tmp_path), []
    monkeypatch.setattr(module.os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    run.append({"step": 4})
    assert synced == [(tmp_path / "records.jsonl").stat().st_ino]


def test_a_branch_is_written_by_one_alone(tmp_path):
    run = begun(tmp_path / "run")
    with writing(tmp_path / "new"), pytest.raises(InputError, match="is being trained already"):
        Run.branch(run.folder, tmp_path / "new")


def test_checkpoints_that_were_passed_over_are_set_aside_and_whole_ones_kept(tmp_path):
    run = begun(tmp_path)
    whole, damaged = run.checkpoints()
    damaged.write_bytes(b"half")
    later = damaged.with_name("step_00000900.safetensors")
    later.write_bytes(b"half")
    assert run.newest_whole()[1]["step"] == 2
    for step in (3, 4):
        run.save(step, {"x": torch.zeros(1)}, {})
        assert run.newest_whole()[1]["step"] == step
    assert [path.name for path in run.checkpoints()] == ["step_00000003.safetensors", "step_00000004.safetensors"]
    assert later.with_suffix(".damaged").read_bytes() == b"half" and not whole.exists()


def test_a_checkpoint_under_another_steps_name_is_refused(tmp_path):
    run = begun(tmp_path)
    other = run.checkpoints()[-1].with_name("step_00000099.safetensors")
    run.checkpoints()[-1].rename(other)
    with pytest.raises(InputError, match=r"99\.safetensors: holds step 3, not the one that its name says"):
        read_checkpoint(other)


def test_a_configuration_that_is_no_recipe_is_not_overwritten(tmp_path):
    for text in ("theme: dark\n", "{", "[1]", ""):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(InputError, match=r"config\.yaml"):
            Run.create(tmp_path, Recipe("gancls"))
        assert (tmp_path / "config.yaml").read_text() == text


def test_checkpoints_that_are_a_file_are_named(tmp_path):
    run = begun(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").touch()
    with pytest.raises(InputError, match="checkpoints: is no folder"):
        run.restore()


def test_a_run_without_room_for_records_goes_on_when_there_is(tmp_path):
    """The disk is full when step 6 is recorded; steps 5 and 6 are done again."""
    expected = list(train(small(), SmallBatches(), SETTINGS))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(InputError, match=r"records\.jsonl: cannot be written .*checkpoints are safe"):
            for record in train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)):
                if record["step"] == 4:
                    room = (tmp_path / "records.jsonl").stat().st_size + 9
                    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)))
    assert [record["images"] for record in Run(tmp_path).records()] == [record["images"] for record in expected]
