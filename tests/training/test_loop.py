"""The loop, on a system small enough to see through."""

import math
from dataclasses import replace

import pytest
import torch
from tiny import Small, SmallBatches, make_batch, small
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from t2ilib.errors import InputError
from t2ilib.features import Text
from t2ilib.training import Recipe, Run, TrainingSettings, train
from t2ilib.training.checkpoints import write_checkpoint
from t2ilib.training.ema import EMA
from t2ilib.training.loop import Trainer, set_rate, step_seed

SETTINGS = TrainingSettings(
    steps=8, precision="fp32", log_every=2, sample_every=4, checkpoint_every=4, channels_last=False
)


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def run_in(folder, settings=SETTINGS):
    return Run.create(folder, Recipe("gancls", training=settings))


def without_times(records):
    machine = "seconds", "images_per_second", "peak_memory"
    return [{k: v for k, v in record.items() if k not in machine} for record in records]


def test_records_count_and_mean_terms():
    records = list(train(small(), SmallBatches(), SETTINGS))
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    assert [record["images"] for record in records] == [10, 20, 30, 40]
    assert {"discriminator/real", "discriminator/fake", "generator/fake"} <= set(records[0])
    single = list(train(small(), SmallBatches(), replace(SETTINGS, log_every=1)))
    mean = (single[0]["generator/fake"] + single[1]["generator/fake"]) / 2
    assert records[0]["generator/fake"] == pytest.approx(mean, rel=1e-6)


def test_a_record_shows_what_the_discriminator_says_of_the_last_batch():
    seen = []

    class Asked(Small):
        def watch(self, batch, prepared):
            assert self.training and not torch.is_grad_enabled()
            seen.append(super().watch(batch, prepared))
            return seen[-1]

    torch.manual_seed(0)
    task = Asked()
    records = list(train(task, SmallBatches(), replace(SETTINGS, steps=5)))
    assert [record["step"] for record in records] == [2, 4, 5] and len(seen) == 3
    for record, told in zip(records, seen, strict=True):
        assert {key: record[key] for key in told} == pytest.approx({key: float(each) for key, each in told.items()})
    batch = make_batch(4)  # the last step's, after which D has not changed
    assert records[-1]["D_real"] == pytest.approx(task.score(batch.images, batch.text).mean().item(), rel=1e-5)
    assert records[-1]["peak_memory"] > 50


@pytest.mark.parametrize(("precision", "half"), [("fp32", False), ("bf16", True)])
def test_what_is_watched_is_computed_in_the_run_s_precision(precision, half):
    told = []

    class Asked(Small):
        def watch(self, batch, prepared):
            told.append(torch.is_autocast_enabled(batch.images.device.type))
            return super().watch(batch, prepared)

    Trainer(Asked(), replace(SETTINGS, precision=precision)).step(0, SmallBatches(), watch=True)
    assert told == [half]


def test_watching_leaves_no_trace():
    """Both networks keep their running statistics, which every look in training mode would move."""

    class Normed(Small):
        def __init__(self):
            super().__init__()
            self.discriminator = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 1))

        def watch(self, batch, prepared):
            self.fakes(batch.text, torch.ones_like(batch.text.sentence))  # paints once more, which the step does not
            return super().watch(batch, prepared)

    def trained(watch):
        torch.manual_seed(0)
        trainer = Trainer(Normed(), SETTINGS)
        for number in range(3):
            terms = trainer.step(number, SmallBatches(), watch=watch)
            assert ("D_fake" in terms) is watch
        return trainer.task

    assert equal(trained(True), trained(False))


def test_resume_is_bit_exact(tmp_path):
    whole, parts = small(), small()
    expected = list(train(whole, SmallBatches(), SETTINGS, run_in(tmp_path / "whole")))
    stopped = train(parts, SmallBatches(), SETTINGS, run_in(tmp_path / "parts"))
    for record in stopped:
        if record["step"] == 6:  # the checkpoint is of step 4: steps 5 and 6 are lost, and their record with them
            break
    stopped.close()
    resumed = small()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.add_(1)  # nothing may survive from before the checkpoint is loaded
    rest = list(train(resumed, SmallBatches(), SETTINGS, Run.open(tmp_path / "parts")))
    assert [record["step"] for record in rest] == [6, 8]
    assert equal(whole, resumed)
    assert without_times(Run.open(tmp_path / "parts").records()) == without_times(expected)


def test_finished_run_yields_nothing_and_can_be_prolonged(tmp_path):
    first = small()
    list(train(first, SmallBatches(), SETTINGS, run_in(tmp_path)))
    again = small()
    assert list(train(again, SmallBatches(), SETTINGS, run_in(tmp_path))) == []
    assert equal(first, again)
    longer = replace(SETTINGS, steps=10)
    assert [r["step"] for r in train(small(), SmallBatches(), longer, run_in(tmp_path, longer))] == [10]


def test_other_recipe_in_same_folder_is_refused(tmp_path):
    run_in(tmp_path)
    run_in(tmp_path, replace(SETTINGS, seed=2))  # it never took a step: a mistake that may be corrected
    assert Run.open(tmp_path).recipe.training.seed == 2
    next(train(small(), SmallBatches(), SETTINGS, Run.open(tmp_path)))
    with pytest.raises(InputError, match="run of another recipe"):
        run_in(tmp_path, replace(SETTINGS, seed=3))


def test_loss_that_is_not_finite_stops_with_step_terms_and_checkpoint(tmp_path):
    with pytest.raises(InputError) as error:
        list(train(small(), SmallBatches(poison=6), SETTINGS, run_in(tmp_path)))
    message = str(error.value)
    assert "step 7" in message and "discriminator/real = nan" in message and "step_00000004.safetensors" in message
    assert [record["step"] for record in Run.open(tmp_path).records()] == [2, 4, 6]
    saved, _, _ = Run.open(tmp_path).restore()
    assert all(value.isfinite().all() for value in saved.values())


def test_skip_leaves_weights_alone_and_counts(tmp_path):
    settings = replace(SETTINGS, non_finite="skip", steps=4)
    system = small()
    system.generator[1] = nn.Identity()  # running statistics would keep the NaN
    records = list(train(system, SmallBatches(poison=3), settings, run_in(tmp_path, settings)))
    assert all(parameter.isfinite().all() for parameter in system.parameters())
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert Run.open(tmp_path).restore()[1]["skipped"] == 2


class Lazy(Small):
    """A system with a term at every third step only."""

    def generator_loss(self, batch, fakes):
        terms = super().generator_loss(batch, fakes)
        return terms if batch.step % 3 else terms | {"rare": 2.0 * terms["fake"].detach() + batch.step}


def test_terms_that_some_steps_lack_are_averaged_over_those_that_have_them():
    torch.manual_seed(0)
    single = list(train(Lazy(), SmallBatches(), replace(SETTINGS, log_every=1, steps=6)))
    torch.manual_seed(0)
    (record, _) = train(Lazy(), SmallBatches(), replace(SETTINGS, log_every=4, steps=6))
    rare = [row["generator/rare"] for row in single if "generator/rare" in row]
    assert [row["step"] for row in single if "generator/rare" in row] == [1, 4]
    assert record["generator/rare"] == pytest.approx(sum(rare) / 2, rel=1e-6)


def test_a_detached_term_is_recorded_and_changes_no_gradient():
    systems = small(), small()
    systems[1].generator_loss = lambda batch, fakes: {
        **Small.generator_loss(systems[1], batch, fakes),
        "watched": fakes.last.detach().mean() * 1e6,
    }
    records = [list(train(system, SmallBatches(), SETTINGS)) for system in systems]
    assert equal(*systems)
    assert "generator/watched" in records[1][0] and "generator/watched" not in records[0][0]


def test_generator_step_leaves_discriminator_without_gradients():
    trainer, batch = Trainer(small(), SETTINGS), make_batch(0)
    before = {name: p.clone() for name, p in trainer.task.discriminator.named_parameters()}
    trainer.update("generator", batch, trainer.task.prepare(batch, ("generator",)))
    assert all(p.grad is None for p in trainer.task.discriminator.parameters())
    assert all(p.requires_grad for p in trainer.task.discriminator.parameters())
    assert all(torch.equal(before[name], p) for name, p in trainer.task.discriminator.named_parameters())
    assert all(p.grad is not None for p in trainer.task.generator.parameters())


def test_hooks_see_the_average_at_their_interval_in_evaluation_mode():
    seen = []
    text, noise = Text(torch.ones(2, 3)), torch.zeros(2, 3)

    def look(step, system):
        seen.append((step, system.training, system.generate(text, noise)))
        return {"metric/half": step / 2}

    system = small()
    records = list(train(system, SmallBatches(), SETTINGS, sample=look))
    assert [(step, training) for step, training, _ in seen] == [(4, False), (8, False)]
    assert torch.equal(seen[-1][2], system.generate(text, noise))  # the system is left with the average
    assert [record.get("metric/half") for record in records] == [None, 2.0, None, 4.0]
    seen.clear()
    list(train(small(), SmallBatches(), SETTINGS, evaluate=look))
    assert [step for step, *_ in seen] == [8]


def test_hooks_do_not_change_the_training():
    def meddle(step, system):
        torch.manual_seed(step)
        torch.randn(7)

    plain, watched = small(), small()
    list(train(plain, SmallBatches(), SETTINGS))
    list(train(watched, SmallBatches(), SETTINGS, sample=meddle, evaluate=meddle))
    assert equal(plain, watched)


def test_without_decay_there_is_no_average(tmp_path):
    system = small()
    system.config = type("Plain", (system.config,), {"ema": 0.0})
    list(train(system, SmallBatches(), SETTINGS, run_in(tmp_path)))
    assert not any(name.startswith("ema.") for name in Run.open(tmp_path).restore()[0])


def test_ema_equals_its_definition():
    module = nn.Linear(2, 2)
    ema = EMA(module, 0.9)
    expected = module.weight.detach().clone()
    for step in range(200):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 2))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
        ema.update(module, step)
    assert torch.allclose(ema.module.weight, expected, atol=1e-5)


def test_ema_warms_up_so_that_the_first_weights_do_not_linger():
    """After 20 steps a plain average of decay 0.999 would still be 98 % the initial weights."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    ema = EMA(module, 0.999)
    nn.init.ones_(module.weight)
    for step in range(20):
        ema.update(module, step)
    assert ema.module.weight.item() > 0.99


def test_step_seeds_are_distinct():
    seeds = {step_seed(seed, rank, step) for seed in range(4) for rank in range(4) for step in range(100)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_gradient_clip_bounds_the_update():
    trainer, batch = Trainer(small(), replace(SETTINGS, gradient_clip=1e-3)), make_batch(0)
    trainer.update("generator", batch, trainer.task.prepare(batch, ("generator",)))
    norm = torch.stack([p.grad.norm() for p in trainer.task.generator.parameters()]).norm()
    assert norm <= 1.001e-3


def test_rates_are_shares_of_each_groups_own():
    weights = nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": weights.weight, "lr": 0.1}, {"params": weights.bias, "lr": 4.0}])
    for share in (0.5, 0.25, 1.0):
        set_rate(optimizer, share)
        assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1 * share, 4 * share])


def test_compiled_training_equals_eager(monkeypatch):
    """What a step shares and both losses are compiled once, whatever the step, and draw the numbers of eager ones.

    The compiler's back end is the one that runs the captured graphs as they are: inductor would take a minute.
    """
    torch._dynamo.reset()
    graphs, real = [], torch.compile

    def capture(part, options):
        assert options == {"fallback_random": True}
        backend = CompileCounterWithBackend("aot_eager")
        graphs.append(backend)
        return real(part, backend=backend)

    plain, compiled = small(), small()
    expected = list(train(plain, SmallBatches(), SETTINGS))
    monkeypatch.setattr(torch, "compile", capture)
    records = list(train(compiled, SmallBatches(), replace(SETTINGS, compile=True)))
    assert [backend.frame_count > 0 for backend in graphs] == [True, True]
    assert sum(backend.frame_count for backend in graphs) <= 6
    for record, wanted in zip(without_times(records), without_times(expected), strict=True):
        assert record == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("channels_last", [True, False])
def test_pictures_have_the_layout_of_the_settings(channels_last):
    trainer, seen = Trainer(small(), replace(SETTINGS, channels_last=channels_last)), []
    layout = torch.channels_last if channels_last else torch.contiguous_format
    trainer.prepare = lambda batch, roles: seen.append(batch) or trainer.task.prepare(batch, roles)
    trainer.step(0, SmallBatches())
    assert seen[0].images.is_contiguous(memory_format=layout)
    assert not make_batch(0).images.is_contiguous(memory_format=torch.channels_last)
    batch = replace(make_batch(0), mismatched=make_batch(1).images).to_layout(layout)
    assert batch.mismatched.is_contiguous(memory_format=layout)


def test_pictures_are_counted_whoever_has_seen_them(tmp_path):
    """A run that several processes began has shown more pictures than one process would have by then."""
    run = run_in(tmp_path)
    list(train(small(), SmallBatches(), replace(SETTINGS, steps=4), run))
    tensors, about, path = run.restore()
    about["record"]["images"] *= 2
    write_checkpoint(path, tensors, about)
    assert [record["images"] for record in train(small(), SmallBatches(), SETTINGS, run)] == [2 * 20 + 10, 2 * 20 + 20]


@pytest.mark.parametrize("key", ["seconds", "skipped", "drawn"])
def test_a_checkpoint_that_does_not_say_where_it_is_cannot_be_gone_on_from(tmp_path, key):
    list(train(small(), SmallBatches(), SETTINGS, run_in(tmp_path)))
    run = Run.open(tmp_path)
    tensors, about, path = run.newest_whole()
    write_checkpoint(path, tensors, {name: value for name, value in about.items() if name != key})
    with pytest.raises(InputError, match=f"its {key} is None"):
        list(train(small(), SmallBatches(), replace(SETTINGS, steps=9), run))
