"""The loop, on a system small enough to see through: one linear generator, one linear discriminator."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from t2ilib.errors import InputError
from t2ilib.training import Recipe, Run, Samples, TrainingSettings, train
from t2ilib.training.ema import EMA
from t2ilib.training.loop import Trainer, frozen, step_seed

SETTINGS = TrainingSettings(
    steps=8, precision="fp32", ema=0.9, log_every=2, sample_every=4, checkpoint_every=4, channels_last=False
)


class Small(nn.Module):
    """A system of two linear layers whose noise comes from the global random numbers, as dropout's would."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Dropout(0.2))
        self.discriminator = nn.Linear(12, 1)

    def optimizers(self):
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: torch.optim.Adam(part.parameters(), 1e-2, fused=True) for name, part in parts.items()}

    def fake(self, batch):
        return self.generator(torch.cat([batch, torch.randn(len(batch), 3)], 1))

    def discriminator_loss(self, batch):
        with torch.no_grad():
            fake = self.fake(batch)
        return {"real": -self.discriminator(batch.repeat(1, 4)).mean(), "fake": self.discriminator(fake).mean()}

    def generator_loss(self, batch):
        return {"fake": -self.discriminator(self.fake(batch)).mean()}

    def generate(self, sentence, noise):
        return self.generator(torch.cat([sentence, noise], 1)).reshape(-1, 3, 2, 2)


class SmallBatches:
    batch_size = 5

    def __init__(self, poison=None):
        self.poison = poison

    def batch(self, step):
        batch = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        return batch * torch.nan if step == self.poison else batch


def small():
    torch.manual_seed(0)
    return Small()


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def run_in(folder, settings=SETTINGS):
    return Run.create(folder, Recipe("gancls", training=settings))


def without_times(records):
    return [{k: v for k, v in record.items() if k not in ("seconds", "images_per_second")} for record in records]


def test_records_count_and_mean_terms():
    records = list(train(small(), SmallBatches(), SETTINGS))
    assert [record["step"] for record in records] == [2, 4, 6, 8]
    assert [record["images"] for record in records] == [10, 20, 30, 40]
    assert {"discriminator/real", "discriminator/fake", "generator/fake"} <= set(records[0])
    single = list(train(small(), SmallBatches(), replace(SETTINGS, log_every=1)))
    mean = (single[0]["generator/fake"] + single[1]["generator/fake"]) / 2
    assert records[0]["generator/fake"] == pytest.approx(mean, rel=1e-6)


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
    settings = replace(SETTINGS, non_finite="skip", steps=4, ema=0.0)
    system = small()
    system.generator[1].track_running_stats = False
    system.generator[1].running_mean = system.generator[1].running_var = None
    records = list(train(system, SmallBatches(poison=3), settings, run_in(tmp_path, settings)))
    assert all(parameter.isfinite().all() for parameter in system.parameters())
    assert all(math.isfinite(value) for record in records for value in record.values())
    assert Run.open(tmp_path).restore()[1]["skipped"] == 2


def test_generator_step_leaves_discriminator_without_gradients():
    trainer = Trainer(small(), SETTINGS)
    before = {name: p.clone() for name, p in trainer.system.discriminator.named_parameters()}
    with frozen(trainer.system.discriminator):
        trainer.update("generator", SmallBatches().batch(0))
        assert all(p.grad is None for p in trainer.system.discriminator.parameters())
    assert all(p.requires_grad for p in trainer.system.discriminator.parameters())
    assert all(torch.equal(before[name], p) for name, p in trainer.system.discriminator.named_parameters())


def test_samples_come_from_the_average_at_their_interval():
    drawn = []
    samples = Samples(torch.ones(2, 3), torch.zeros(2, 3), lambda step, pictures: drawn.append((step, pictures)))
    system = small()
    list(train(system, SmallBatches(), SETTINGS, samples=samples))
    assert [step for step, _ in drawn] == [4, 8]
    assert torch.equal(drawn[-1][1], system.generate(torch.ones(2, 3), torch.zeros(2, 3)))  # left with the average


def test_evaluation_joins_the_record_of_its_step():
    records = list(train(small(), SmallBatches(), SETTINGS, evaluate=lambda step, generate: {"metric/half": step / 2}))
    assert [record.get("metric/half") for record in records] == [None, None, None, 4.0]


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


def test_step_seeds_are_distinct():
    seeds = {step_seed(seed, rank, step) for seed in range(4) for rank in range(4) for step in range(100)}
    assert len(seeds) == 1600
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_gradient_clip_bounds_the_update():
    trainer = Trainer(small(), replace(SETTINGS, gradient_clip=1e-3))
    trainer.update("generator", SmallBatches().batch(0))
    norm = torch.stack([p.grad.norm() for p in trainer.system.generator.parameters()]).norm()
    assert norm <= 1.001e-3
