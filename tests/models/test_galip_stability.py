"""Why GALIP's training breaks down in fp16: the penalty 2 s^6 outgrows float16 where the slope s of D passes 2.4.

The matching-aware penalty is k mean s^6, s = ||gradient||, and k = 2. Its derivative with respect to s is 6 k s^5. A
weight that a whole batch shares collects about that, times the loss scale S, whatever the batch; where 12 S s^5 passes
65,504, float16's largest number, the update is left out and S halved. The released code lets S fall to 64, then begins
anew with 16,384. That leaves s = (65,504 / (12 * 64))^(1/5) = 2.43: a discriminator steeper than this can never be
updated again, so it stays as steep.
"""

import math

import pytest
import torch

from t2ilib.losses import matching_aware_penalty
from t2ilib.models.galip import GALIP, GALIPConfig
from t2ilib.training import TrainingSettings
from t2ilib.training.loop import Trainer
from t2ilib.training.scaling import ANEW, LEAST, overflowing

LARGEST = torch.finfo(torch.float16).max
FIRST = 2.0**16  # PyTorch's first scale
HEAD = {"head.joint.0.weight", "head.joint.2.weight"}
K, P = 2.0, 6.0


def critical_slope(scale: float) -> float:
    return (LARGEST / (P * K * scale)) ** (1 / (P - 1))


class Same:
    """The same batch at every step."""

    def __init__(self, batch):
        self.made, self.batch_size = batch, len(batch.images)

    def batch(self, number):
        return self.made


def penalty_of(system, batch):
    """The penalty as in the discriminator's loss: at CLIP's maps of real pictures and their sentences."""
    with torch.no_grad():
        seen, _ = system.image_features(batch.images, embedded=False)
    return matching_aware_penalty(lambda x, e: (system.head(system.discriminator(x), e), ()), seen, batch.text.sentence)


def slope_of(system, batch) -> float:
    """(mean s^6)^(1/6) at the batch's real pairs, from the penalty in float32."""
    return (penalty_of(system, batch)[0].item() / K) ** (1 / P)


def steep(slope, make_batch, count=4, seed=0):
    """A tiny GALIP of this slope at the real pairs of a batch, and the batch.

    The logit is linear in the head's last convolution, which has no bias: multiplied by a factor, so is the slope.
    """
    torch.manual_seed(seed)
    system = GALIP(GALIPConfig.tiny())
    batch = make_batch(system, count)
    with torch.no_grad():
        system.head.joint[2].weight.mul_(slope / slope_of(system, batch))
    assert slope_of(system, batch) == pytest.approx(slope, rel=1e-4)
    return system, batch


def trainer_of(system, precision):
    trainer = Trainer(system, TrainingSettings(precision=precision, channels_last=False))
    system.updated = []
    system.after_update = system.updated.append
    return trainer


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def moved(before, network):
    return any(not torch.equal(*pair) for pair in zip(before, network.parameters(), strict=True))


def discriminator_loss(system, batch, precision):
    trainer = trainer_of(system, precision)
    torch.manual_seed(3)
    with trainer.autocast():
        return sum(trainer.loss("discriminator", batch, trainer.prepare(batch, ("discriminator",))).values())


def largest_scale(system, batch) -> tuple[float, list[str]]:
    """The largest power of two, up to 2^16, at which D's gradients fit into fp16, and what is too large at twice that.

    The first of the list in the order of the forward pass; empty where the first scale fits already.
    """
    loss, beyond = discriminator_loss(system, batch, "fp16"), []
    for power in range(16, -16, -1):
        found = overflowing(system.discriminator, loss, 2.0**power)
        if not found:
            return 2.0**power, beyond
        beyond = found
    raise AssertionError(f"nothing fits: {beyond}")


def test_the_rule_gives_the_numbers_that_are_told():
    assert critical_slope(LEAST) == pytest.approx(2.43, abs=5e-3)
    assert critical_slope(FIRST) == pytest.approx(0.61, abs=5e-3)
    assert (GALIPConfig().penalty, GALIPConfig().penalty_power) == (K, P)


@pytest.mark.parametrize("count", [1, 4, 16])
@pytest.mark.parametrize("slope", [1.0, 2.43])
def test_the_shared_weights_collect_the_derivative_whatever_the_batch(slope, count, make_batch):
    """s is linear in the last convolution w, so its gradient along w is exactly 6 k s^5 times s / ||w||."""
    system, batch = steep(slope, make_batch, count)
    weight = system.head.joint[2].weight
    penalty_of(system, batch)[0].backward()
    along = (weight.grad * weight).sum() / weight.norm()
    assert along.item() == pytest.approx(P * K * slope**5 * slope / weight.norm().item(), rel=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("slope", [1.0, 2.0, 3.0, 4.0])
def test_the_largest_scale_falls_with_the_fifth_power_of_the_slope(slope, seed, make_batch):
    """Within a factor of four of 65,504 / (12 s^5), while that falls to a thousandth; the head is what overflows."""
    scale, beyond = largest_scale(*steep(slope, make_batch, seed=seed))
    assert 1 / 4 < scale / (LARGEST / (P * K * slope**5)) < 4
    assert beyond and set(beyond) <= HEAD


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [1, 4, 16])
def test_at_the_least_scale_the_border_lies_near_the_predicted_slope(count, seed, make_batch):
    found = {}
    for share in (0.8, 1.2):
        system, batch = steep(share * critical_slope(LEAST), make_batch, count, seed)
        found[share] = overflowing(system.discriminator, discriminator_loss(system, batch, "fp16"), LEAST)
    assert found[0.8] == [] and found[1.2][0] == "head.joint.0.weight"


def test_a_slope_of_one_overflows_at_first_and_recovers(make_batch):
    system, batch = steep(1.0, make_batch)
    trainer = trainer_of(system, "fp16")
    scaler, scales = trainer.scalers["discriminator"], [FIRST]
    for number in range(10):
        before = weights(system.discriminator)
        trainer.step(number, Same(batch))
        scales.append(scaler.get_scale())
        assert moved(before, system.discriminator) == (scales[-1] == scales[-2])
    assert scales[1] == FIRST / 2 and scales[-1] == scales[-5] >= 2048
    assert system.updated.count("discriminator") >= 5


STEPS = 11 + 9 + 2  # from 65,536 down to 32, from 16,384 down to 32, and on


def test_at_a_slope_of_six_the_discriminator_never_moves_again(make_batch):
    """The scale falls and is reset, twice; all updates of D are left out, while G learns against what stands still."""
    system, batch = steep(6.0, make_batch)
    trainer, before, generator = trainer_of(system, "fp16"), weights(system.discriminator), weights(system.generator)
    scales = []
    for number in range(STEPS):
        terms = trainer.step(number, Same(batch))
        assert all(term.isfinite() for term in terms.values())  # nothing that would stop the run
        scales.append(trainer.scalers["discriminator"].get_scale())
    assert scales.count(ANEW) == 1 + 2 and min(scales) == LEAST
    assert "discriminator" not in system.updated and trainer.skipped == 2 * STEPS - len(system.updated)
    assert not moved(before, system.discriminator)
    assert trainer.optimizers["discriminator"].state_dict()["state"] == {}
    assert moved(generator, system.generator)
    assert slope_of(system, batch) == pytest.approx(6.0, rel=1e-4)


def test_in_bf16_the_same_slope_is_harmless(make_batch):
    """It reaches as far as float32: every update happens, and the penalty does what it is for."""
    system, batch = steep(6.0, make_batch)
    loss = discriminator_loss(system, batch, "bf16")
    assert overflowing(system.discriminator, loss, 1.0) == overflowing(system.discriminator, loss, FIRST) == []
    trainer = trainer_of(system, "bf16")
    for number in range(STEPS):
        trainer.step(number, Same(batch))
        assert all(p.grad.isfinite().all() for p in system.discriminator.parameters() if p.grad is not None)
    assert trainer.skipped == 0 and system.updated.count("discriminator") == STEPS
    assert slope_of(system, batch) < 5.5


def test_what_overflows_is_named_and_nothing_else():
    network = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    with torch.autocast("cpu", torch.float16):
        loss = network[1](network[0](torch.full((1, 1), 10.0))).float().sum()
    assert overflowing(network, loss, 1.0) == []
    assert overflowing(network, loss, 8_000.0) == ["0.weight", "1.weight"]  # inputs 10 and 11
    assert overflowing(network, loss, 6_200.0) == ["1.weight"]
    assert overflowing(network[0], loss, math.inf) == ["weight", "bias"]
    assert all(parameter.grad is None for parameter in network.parameters())
