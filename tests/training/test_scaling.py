"""The loss scale of fp16: gradients as in fp32, an overflow left out and forgotten, and the scale back on resume."""

import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from test_loop import SETTINGS, equal, run_in, without_times
from tiny import Small, SmallBatches, make_batch

from t2ilib.errors import InputError
from t2ilib.training import Run, TrainingSettings, loop, train
from t2ilib.training.checkpoints import write_checkpoint
from t2ilib.training.loop import Trainer
from t2ilib.training.scaling import ANEW, LEAST, STANDSTILL, LossScaler, restore_scales, scales

HALF = replace(SETTINGS, precision="fp16")
FIRST = 2.0**16
# slopes of a loss: gradients fit at once (at 1 the bias, which all rows share, would collect 2^16, and that is too much
# already), below a scale of some 500, and at no scale that is allowed
GENTLE, STEEP, HOPELESS = 0.1, 100.0, 1e6


class Steep(Small):
    """Losses in float32, as the library's, and `slopes` by role: what each loss is multiplied by."""

    def __init__(self, **slopes):
        torch.manual_seed(0)
        super().__init__()
        self.slopes, self.updated, self.seen = slopes, [], []

    def score(self, pictures, text):
        logits = super().score(pictures, text)
        self.seen.append(logits.dtype)
        return logits.float()

    def loss(self, role, batch, prepared):
        terms = super().loss(role, batch, prepared)
        return {name: self.slopes.get(role, GENTLE) * term for name, term in terms.items()}

    def after_update(self, role):
        self.updated.append(role)


def step(trainer, number=0):
    return trainer.step(number, SmallBatches())


def copied(*holders):
    """Copies of all tensors in the states, as a list."""
    found = [value for holder in holders for value in holder.state_dict().values()]
    return [value.clone() if isinstance(value, torch.Tensor) else repr(value) for value in found]


def same(before, after):
    return all(
        torch.equal(*pair) if torch.is_tensor(pair[0]) else pair[0] == pair[1]
        for pair in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("role", Steep.trained)
def test_a_step_equals_that_in_float32(role):
    gradients = []
    for settings in (HALF, SETTINGS):
        task = Steep()
        trainer, batch = Trainer(task, settings), make_batch(0)
        torch.manual_seed(1)
        with trainer.autocast():
            prepared = trainer.prepare(batch, (role,))
        trainer.update(role, batch, prepared)
        assert task.updated == [role] and trainer.skipped == 0
        assert set(task.seen) == {torch.float16 if settings is HALF else torch.float32}
        gradients.append([parameter.grad for parameter in getattr(task, role).parameters()])
    largest = max(full.abs().max().item() for full in gradients[1])
    for half, full in zip(*gradients, strict=True):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full, rtol=4e-3, atol=1e-3 * largest)
    assert any(not torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_gradients_are_clipped_in_their_true_size():
    trainer = Trainer(Steep(), replace(HALF, gradient_clip=1e-3))
    step(trainer)
    for role in trainer.task.trained:
        norm = torch.stack([p.grad.norm() for p in getattr(trainer.task, role).parameters()]).norm()
        assert norm == pytest.approx(1e-3, rel=1e-3)


def test_an_overflow_halves_the_scale_and_is_left_out_until_it_fits():
    task = Steep(discriminator=STEEP)
    trainer = Trainer(task, HALF)
    discriminator, scaler = task.discriminator, trainer.scalers["discriminator"]
    step(trainer)  # far from the first scale that fits
    step(trainer, 1)
    assert scaler.get_scale() == FIRST / 4 and trainer.skipped == 2 and task.updated == ["generator"] * 2
    assert trainer.optimizers["discriminator"].state_dict()["state"] == {}
    assert same(copied(discriminator), copied(Steep().discriminator))
    for number in range(2, 9):
        before = copied(discriminator, trainer.optimizers["discriminator"])
        scale, skipped = scaler.get_scale(), trainer.skipped
        step(trainer, number)
        left_out = scaler.get_scale() == scale / 2
        assert left_out or scaler.get_scale() == scale
        assert trainer.skipped == skipped + left_out
        assert same(before, copied(discriminator, trainer.optimizers["discriminator"])) == left_out
    assert not left_out and LEAST < scale < FIRST / 8
    assert all(parameter.isfinite().all() for parameter in task.parameters())


def test_each_role_has_a_scale_of_its_own():
    for steep, other in (Steep.trained, Steep.trained[::-1]):
        trainer = Trainer(Steep(**{steep: STEEP}), HALF)
        start = copied(getattr(trainer.task, other))
        for number in range(4):
            step(trainer, number)
        assert trainer.scalers[steep].get_scale() == FIRST / 16 and trainer.scalers[other].get_scale() == FIRST
        assert trainer.task.updated == [other] * 4
        assert not same(start, copied(getattr(trainer.task, other)))


def test_below_64_the_scale_is_set_to_16384():
    assert (LEAST, ANEW) == (64, 16_384)
    trainer = Trainer(Steep(discriminator=HOPELESS), HALF)
    scale, seen = trainer.scalers["discriminator"], []
    for number in range(21):
        step(trainer, number)
        seen.append(scale.get_scale())
    falling = [2.0**power for power in range(13, 5, -1)]  # 8,192 to 64
    assert seen == [2.0**15, 2.0**14, *falling, 2.0**14, *falling, 2.0**14, 2.0**13]
    assert trainer.skipped == 21 and "discriminator" not in trainer.task.updated


def test_a_role_none_of_whose_updates_fits_ends_the_run(tmp_path):
    """Records and checkpoints of before stay; one update that fits, and the count begins anew."""
    settings = replace(HALF, steps=STANDSTILL + 1, checkpoint_every=40)
    run, records = run_in(tmp_path, settings), []
    with pytest.raises(InputError, match=r"^training\.precision: fp16 .*of the discriminator: 100 updates.*set bf16"):
        for record in train(Steep(discriminator=HOPELESS), SmallBatches(), settings, run):
            records.append(record)
    assert records[-1]["skipped"] >= records[-1]["step"] > 90 and run.restore()[1]["step"] == 80
    task = Steep(discriminator=HOPELESS)
    trainer = Trainer(task, HALF)
    for number in range(STANDSTILL + 10):
        task.slopes["discriminator"] = GENTLE if number == 50 else HOPELESS
        step(trainer, number)
    assert task.updated.count("discriminator") == 1 and trainer.scalers["discriminator"].left_out == 59


def test_the_scale_rises_after_enough_updates_that_fit():
    scaler, weight = LossScaler("cpu", growth_interval=3), torch.nn.Parameter(torch.ones(1))
    optimizer, seen = torch.optim.SGD([weight]), []
    for number in range(7):
        optimizer.zero_grad()
        scaler.scale((weight * (math.inf if number == 4 else 1.0)).sum()).backward()
        assert scaler.unscaled(optimizer) == (number != 4)
        seen.append(scaler.get_scale() / FIRST)
    assert seen == [1, 1, 2, 2, 1, 1, 1]
    assert scales({"one": scaler, "off": LossScaler("cpu", enabled=False)}) == {"one": {"scale": FIRST, "since": 2}}


def test_an_overflow_in_another_process_is_one_here(monkeypatch):
    """The mean over processes holds what is infinite in any of them: all leave the update out together."""
    trainer = Trainer(Steep(), HALF)
    monkeypatch.setattr(loop, "average_gradients", lambda parameters, process: parameters[0].grad.fill_(math.inf))
    step(trainer)
    assert trainer.skipped == 2 and trainer.task.updated == []
    assert {scaler.get_scale() for scaler in trainer.scalers.values()} == {FIRST / 2}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_other_precisions_have_no_scale(precision, tmp_path):
    settings = replace(SETTINGS, precision=precision)
    trainer = Trainer(Steep(discriminator=HOPELESS), settings)
    step(trainer)
    assert trainer.skipped == 0 and trainer.task.updated == list(Steep.trained)
    assert {scaler.get_scale() for scaler in trainer.scalers.values()} == {1.0}
    run = run_in(tmp_path, settings)
    list(train(Steep(), SmallBatches(), settings, run))
    assert "scales" not in run.restore()[1]


# ---- runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Let scales rise after three updates, so that a short run sees them rise and fall."""
    monkeypatch.setattr(loop, "LossScaler", partial(LossScaler, growth_interval=3))


def told(folder):
    return Run.open(folder).restore()[1]


@pytest.mark.usefixtures("quick")
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    settings = replace(HALF, steps=16, checkpoint_every=10, sample_every=10)
    whole, parts, resumed = (Steep(discriminator=STEEP) for _ in range(3))
    expected = list(train(whole, SmallBatches(), settings, run_in(tmp_path / "whole", settings)))
    stopped = train(parts, SmallBatches(), settings, run_in(tmp_path / "parts", settings))
    next(record for record in stopped if record["step"] == 10)
    stopped.close()
    halfway = told(tmp_path / "parts")
    assert halfway["scales"]["generator"] == {"scale": FIRST * 8, "since": 1}
    assert halfway["scales"]["discriminator"]["scale"] < FIRST / 8
    list(train(resumed, SmallBatches(), settings, Run.open(tmp_path / "parts")))
    assert equal(whole, resumed)
    assert without_times(Run.open(tmp_path / "parts").records()) == without_times(expected)
    ends = [told(tmp_path / name) for name in ("whole", "parts")]
    assert ends[0]["scales"] == ends[1]["scales"] and ends[0]["skipped"] == ends[1]["skipped"] > halfway["skipped"]


def edited(folder, change):
    """Write the newest checkpoint of a short run anew, what it tells of itself changed by `change`; return its path."""
    list(train(Steep(discriminator=STEEP), SmallBatches(), HALF, run_in(folder, HALF)))
    tensors, about, path = Run.open(folder).restore()
    change(about)
    write_checkpoint(path, tensors, about)
    return path


def test_a_checkpoint_without_scales_is_gone_on_from_with_fresh_ones(tmp_path):
    edited(tmp_path, lambda about: about.pop("scales"))
    list(train(Steep(), SmallBatches(), replace(HALF, steps=9), Run.open(tmp_path)))
    assert told(tmp_path)["scales"] == {role: {"scale": FIRST, "since": 1} for role in Steep.trained}


ROW = {"scale": 1024.0, "since": 1}


@pytest.mark.parametrize(
    "scales",
    [
        [],
        3.0,
        {},
        {"generator": ROW},
        {"generator": ROW, "discriminator": ROW, "encoder": ROW},
        {"generator": ROW, "discriminator": 1024.0},
        {"generator": ROW, "discriminator": {"scale": 1024.0}},
        {"generator": ROW, "discriminator": {**ROW, "more": 1}},
        *(
            {"generator": ROW, "discriminator": {**ROW, **wrong}}
            for wrong in (
                {"scale": 0.0},
                {"scale": -1024.0},
                {"scale": 32.0},
                {"scale": math.nan},
                {"scale": math.inf},
                {"scale": True},
                {"scale": "1024"},
                {"since": -1},
                {"since": 1.0},
                {"since": None},
                {"since": 1 << 40},
            )
        ),
    ],
)
def test_damaged_scales_are_named(scales):
    scalers = {role: LossScaler("cpu") for role in Steep.trained}
    with pytest.raises(InputError, match=r"here\.safetensors: not a whole checkpoint .*its scales are") as error:
        restore_scales(scalers, scales, Path("here.safetensors"))
    assert "\n" not in str(error.value)
    assert {scaler.get_scale() for scaler in scalers.values()} == {FIRST}
    off = {role: LossScaler("cpu", enabled=False) for role in Steep.trained}
    restore_scales(off, scales, Path("here.safetensors"))  # of another precision: none of its business


def test_a_run_with_damaged_scales_names_its_file(tmp_path):
    path = edited(tmp_path, lambda about: about.update(scales={"generator": ROW, "discriminator": "1024"}))
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}: not a whole checkpoint .*its scales are"):
        list(train(Steep(), SmallBatches(), replace(HALF, steps=9), Run.open(tmp_path)))


def test_a_loss_that_is_not_finite_stops_the_run_and_an_overflow_does_not(tmp_path):
    settings = replace(HALF, log_every=1)
    task = Steep(discriminator=HOPELESS)
    with pytest.raises(InputError, match=r"step 7: loss is not finite \(discriminator/real = nan"):
        list(train(task, SmallBatches(poison=6), settings, run_in(tmp_path, settings)))
    records = Run.open(tmp_path).records()
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]  # all six of them overflows
    assert "discriminator" not in task.updated and all(map(math.isfinite, records[-1].values()))
    assert told(tmp_path)["skipped"] == 4  # of the checkpoint of step 4


def test_skipping_counts_overflows_and_losses_that_are_not_finite_alike(tmp_path):
    settings = replace(HALF, non_finite="skip")
    task = Steep(discriminator=HOPELESS)
    task.generator[1] = torch.nn.Identity()  # running statistics would keep the NaN
    list(train(task, SmallBatches(poison=3), settings, run_in(tmp_path, settings)))
    assert told(tmp_path)["skipped"] == 8 + 1 and task.updated == ["generator"] * 7
    assert all(parameter.isfinite().all() for parameter in task.parameters())


def test_a_recipe_may_ask_for_fp16_and_auto_never_means_it():
    assert TrainingSettings(precision="fp16").precision == "fp16"
    with pytest.raises(InputError, match=r"training\.precision: 'fp8' is not one of auto, fp32, bf16, fp16"):
        TrainingSettings(precision="fp8")
    assert Trainer(Steep(), replace(SETTINGS, precision="auto")).half in (None, torch.bfloat16)
